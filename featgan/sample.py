"""Images from a trained generator: `python -m featgan.sample RUN_OR_FILE --out grid.png`.

A grid, separate files, or a strip that walks between two noise vectors. The generator's file
carries its configuration, so no sweep file is needed.
"""

from __future__ import annotations

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

from featgan import output
from featgan.errors import UserError
from featgan.gans.registry import Generator, load_generator, to_uint8
from featgan.seeds import stream

GENERATOR = "generator.safetensors"
BATCH = 64
MOST_COUNT = 100_000
"""Images of one call, all of which are held: 1.2 GB of 64 px."""


def generate(generator: Generator, noise: Tensor) -> NDArray[np.uint8]:
    """Images uint8 [n, 3, S, S] from noise [n, latent], in batches."""
    device = next(generator.parameters()).device
    with torch.inference_mode():
        batches = [
            to_uint8(generator(rows.to(device))).cpu().numpy() for rows in noise.split(BATCH)
        ]
    return np.concatenate(batches)


def noise(generator: Generator, count: int, seed: int) -> Tensor:
    """Noise [count, latent], a function of the seed; the first rows do not depend on `count`."""
    return torch.randn(count, generator.gan.latent, generator=stream(seed, "sample"))


def walk(generator: Generator, steps: int, seed: int) -> Tensor:
    """Noise [steps, latent] on the arc from the seed's first vector to its second.

    On the arc rather than the chord, because normal vectors lie near a sphere and their mean
    does not (spherical interpolation, White 2016).
    """
    start, end = noise(generator, 2, seed)
    angle = torch.acos(torch.clamp(torch.cosine_similarity(start, end, dim=0), -1, 1))
    along = torch.linspace(0, 1, steps)[:, None]
    return (torch.sin((1 - along) * angle) * start + torch.sin(along * angle) * end) / angle.sin()


def grid(images: NDArray[np.uint8], columns: int | None = None, gap: int = 2) -> Image.Image:
    """Images uint8 [n, 3, S, S] as one picture, row by row, white gaps of `gap` pixels.

    As near to square as the number allows, unless `columns` says otherwise.
    """
    count, _, height, width = images.shape
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for number, image in enumerate(images.transpose(0, 2, 3, 1)):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return Image.fromarray(sheet)


def png(picture: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    data = io.BytesIO()
    picture.save(data, "png")
    return data.getvalue()


def generator_file(path: Path) -> Path:
    """The generator of a run's folder, or the file itself; a UserError where there is none."""
    file = path / GENERATOR if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{file}: no such file; give a run's folder or its {GENERATOR}")
    return file


def write(images: NDArray[np.uint8], out: Path, columns: int | None) -> list[Path]:
    """One picture at `out`; or, where `out` has no suffix, a folder of one file an image."""
    if out.suffix:
        out.parent.mkdir(parents=True, exist_ok=True)
        grid(images, columns).save(out)
        return [out]
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{number:0{len(str(len(images) - 1))}}.png" for number in range(len(images))]
    for image, file in zip(images.transpose(0, 2, 3, 1), files, strict=True):
        Image.fromarray(image).save(file)
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m featgan.sample", description="Images from a trained generator."
    )
    parser.add_argument("generator", type=Path, help=f"a run's folder or its {GENERATOR}")
    parser.add_argument(
        "--network",
        metavar="MODULE:FUNCTION",
        help="import these networks of your own, which the file was made by",
    )
    parser.add_argument(
        "--count", type=_positive, default=64, help=f"how many images (64), up to {MOST_COUNT:,}"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise (0)")
    parser.add_argument("--columns", type=_positive, help="of the grid (square)")
    parser.add_argument(
        "--walk", action="store_true", help="a strip from one noise vector to another"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("samples.png"),
        help="a picture, or a folder (no suffix) for one file an image (samples.png)",
    )
    options = parser.parse_args(arguments)
    output.spell_all()
    try:
        files = _carry_out(options)
        said = files[0] if len(files) == 1 else f"{len(files)} images in {options.out}"
        print(said, flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        if not output.is_closed():
            raise
        return 1
    return 0


def _carry_out(options: argparse.Namespace) -> list[Path]:
    """Load, generate and write; the files."""
    if options.count > MOST_COUNT:
        raise UserError(f"--count {options.count}: more than {MOST_COUNT:,} images at a time")
    named = [options.network] if options.network else []
    file = generator_file(options.generator)
    generator = load_generator(file, networks=named)
    if named and generator.gan.network not in named:
        made_by = generator.gan.network
        raise UserError(f"--network {named[0]}: {file} was made by {made_by!r}; leave it out")
    make = walk if options.walk else noise
    images = generate(generator, make(generator, options.count, options.seed))
    columns = options.columns or (options.count if options.walk else None)
    try:
        return write(images, options.out, columns)
    except MemoryError:
        raise UserError(f"--count {options.count}: there is too little memory; lower it") from None
    # Pillow's for an unknown suffix, and for a picture too large for its format
    except (OSError, ValueError) as error:
        why = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())
        raise UserError(f"--out {options.out}: {why}; name a picture or a folder") from error


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
