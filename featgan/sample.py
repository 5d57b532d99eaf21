"""Images from a trained generator: `python -m featgan.sample RUN_OR_FILE --out grid.png`.

The generator's file holds its settings, so no sweep file is needed.
"""

import argparse
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from featgan.errors import UserError, first_line
from featgan.gans.classes import draw, grid_columns, in_rows
from featgan.gans.generator_file import SavedGenerator, load_generator
from featgan.gans.registry import to_uint8
from featgan.seeds import stream

GENERATOR = "generator.safetensors"
LAST_GENERATOR = "last_generator.safetensors"
BATCH = 64
GAP = 2
"""White pixels between the images of a grid."""


def generate(generator: SavedGenerator, noise: Tensor) -> NDArray[np.uint8]:
    """Return images uint8 [n, 3, S, S] for noise [n, latent] (and classes), made in batches."""
    device = next(generator.network.parameters()).device
    with torch.inference_mode():
        batches = [
            to_uint8(generator.network(rows.to(device))).cpu().numpy()
            for rows in noise.split(BATCH)
        ]
    return np.concatenate(batches)


def grid(images: NDArray[np.uint8]) -> Image.Image:
    """Return images uint8 [n, 3, S, S] as one picture, row by row."""
    count, _, size, _ = images.shape
    columns = grid_columns(count)
    rows, step = math.ceil(count / columns), size + GAP
    sheet = np.full((rows * columns, step, step, 3), 255, np.uint8)
    sheet[:count, :size, :size] = images.transpose(0, 2, 3, 1)
    lines = sheet.reshape(rows, columns, step, step, 3).swapaxes(1, 2)
    return Image.fromarray(lines.reshape(rows * step, columns * step, 3)[:-GAP, :-GAP])


def png(picture: Image.Image) -> bytes:
    """Return a picture as the bytes of a PNG file."""
    data = io.BytesIO()
    picture.save(data, "png")
    return data.getvalue()


def write_grid(options: argparse.Namespace) -> None:
    """Load the generator, generate images, and write their grid to `options.out`.

    Raises UserError if the generator cannot be loaded or the picture cannot be written.
    """
    run: Path = options.generator
    file = run / GENERATOR if run.is_dir() else run
    generator = load_generator(file, networks=[options.network] if options.network else [])
    # The first images do not depend on their number, but classes do: each has a row in turn.
    random, classes = stream(options.seed, "sample"), generator.classes
    noise = draw(generator.gan.latent, classes, options.count, random)
    picture = grid(generate(generator, in_rows(noise, classes)))
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        picture.save(options.out)
    except (OSError, ValueError) as error:  # Pillow raises them for an unknown suffix, and for
        # a picture that is too large for its format
        reason = (isinstance(error, OSError) and error.strerror) or first_line(error)
        raise UserError(f"--out {options.out}: {reason}; name a picture") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m featgan.sample", description="Write images of a trained generator."
    )
    add = parser.add_argument
    add("generator", type=Path, help=f"folder of a run, or its {GENERATOR}")
    add("--network", metavar="MODULE:FUNCTION", help="the user-defined networks of the file")
    add("--count", type=int, default=64, help="number of images (64)")
    add("--seed", type=int, default=0, help="seed of the noise (0)")
    add("--out", type=Path, default=Path("samples.png"), help="the picture (samples.png)")
    options = parser.parse_args(arguments)
    if options.count < 1:
        parser.error(f"argument --count: {options.count} is not 1 or more")
    try:
        write_grid(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
