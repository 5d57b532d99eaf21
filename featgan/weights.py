"""Weights of published networks: find or download a file, verify it and read its tensors."""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from featgan.digests import sha256_of_file
from featgan.errors import UserError, first_line

State = dict[str, Tensor]
"""Tensors by their names in a network's state."""


def weights_file(path: str | None, url: str, setting: str) -> tuple[Path, str]:
    """Return the file at `path`, or torch.hub's copy of `url`, and its SHA-256.

    The copy is downloaded if it is missing, and verified by the digits at the end of its name.
    Raises `UserError` that names `setting`, the dotted key of the path, if there is no such file.
    """
    if path is not None:
        file = Path(path).expanduser()
        if not file.is_file():
            raise UserError(f"{setting}: {file} is not a file; give a file of weights")
        return file, sha256_of_file(file)
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), published_digits(url), progress=False)
        # URLError and timeouts are OSErrors; a wrong hash is a RuntimeError
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{setting}: the weights cannot be downloaded ({first_line(error)}); fetch {url} "
                f"on a machine with access and copy it to {file}, or set {setting} to its path"
            ) from error
    sha256 = sha256_of_file(file)
    if not sha256.startswith(published_digits(url)):
        raise UserError(f"{setting}: {file} is damaged; delete it to download it again")
    return file, sha256


def published_digits(url: str) -> str:
    """Return the first digits of the SHA-256 of a published file, which are part of its name."""
    return Path(url).stem.rpartition("-")[2]


def read_weights(file: Path, setting: str, read: Callable[[Path], State] | None = None) -> State:
    """Return the tensors of a PyTorch or safetensors file, or of another format with `read`.

    Of a checkpoint these are the tensors of its `state_dict`; DataParallel's `module.` is dropped.
    Raises `UserError` if the file holds anything else. Code in a file is never run.
    """
    try:
        if read is not None:
            return read(file)
        if file.suffix == ".safetensors":
            return load_file(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a TorchScript archive, which is refused
            found = torch.load(file, map_location="cpu", weights_only=True)
        for key in ("state_dict", "model_state_dict", "model"):
            if isinstance(found, dict) and isinstance(found.get(key), dict):
                found = found[key]
        if not isinstance(found, dict) or not all(map(torch.is_tensor, found.values())):
            raise ValueError("it does not hold named tensors alone")
        return {name.removeprefix("module."): tensor for name, tensor in found.items()}
    except UserError:
        raise
    # pickle, zip, safetensors and HDF5 have errors of their own for a file of another format
    except Exception as error:
        why = first_line(error)
        if "weights_only" in str(error):  # torch advises to run the file's code
            why = "it is not PyTorch's or holds more than tensors, such as a whole model, whose "
            why += "code is not run: save model.state_dict() alone"
        raise UserError(f"{setting}: {file} cannot be read as weights ({why})") from error
