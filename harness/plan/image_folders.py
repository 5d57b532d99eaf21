"""The sweep file that `--images` writes: another file's method, for folders of images."""

import re
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from featgan.errors import UserError
from harness.plan.load import load
from harness.plan.settings import FEATURES_FOLDER, Sweep
from harness.plan.yaml_file import parse
from harness.sources.folder import FolderSource, absolute, local

FEW, MANY = 200, 100_000
"""A data set of fewer images, or of more, gets settings of its own."""
STAGE_IMAGES = 10_000
"""Images, with repetitions, of a stage on all of them: half a minute on a CPU core."""
EVALUATIONS = 6
"""Evaluations of a stage: the classifier takes seconds for each."""


def sweep_file(folders: list[str], template: Path) -> tuple[Path, list[str]]:
    """Return the sweep file for image folders, and lines on it; write it if it is missing.

    Its method is the template's, except for what depends on the number of images. Raises UserError
    where a folder holds no image, or the file is there and has other images.
    """
    if "" in folders:
        raise UserError("--images: name a folder; the current folder is `.`")
    data = dict[str, dict[str, str]]()
    for path in dict.fromkeys(map(absolute, folders)):
        base = re.sub(r"\W+", "-", path.rstrip("/").rpartition("/")[2], flags=re.ASCII)
        base = base.strip("-")[:40] or "images"
        names = (f"{base}-{number}" if number > 1 else base for number in count(1))
        name = next(name for name in names if name not in data)
        data[name] = {"source": "folder", "path": path}
    stem = "-".join(data)[:60]
    file = Path("sweeps", f"{stem}.yaml" if stem != FEATURES_FOLDER else f"{stem}-images.yaml")
    if file.exists():
        known = {path for source in load(file).data.values() for path in source.files()}
        for path in local(folders):
            if path not in known:
                raise UserError(
                    f"{file} exists, and its images are not those of {path}: rename it, or run "
                    "it by its name"
                )
        return file, [f"{file} exists and is run as it is"]

    # choices by the number of images
    content = parse(template)
    sizes, lines = list[int](), list[str]()
    for name, source in data.items():
        rows = FolderSource.model_validate(source).find(content["image_size"]).rows
        sizes.append(sum(row.problem is None for row in rows))
        lines.append(f"{name}: {sizes[-1]:,} images")
    every = max(1, STAGE_IMAGES // EVALUATIONS // max(1, *sizes))
    training = {"stage_epochs": EVALUATIONS * every, "evaluate_every": every}
    lines.append(f"{EVALUATIONS * every} epochs a stage, an evaluation every {every}")
    if min(sizes) < FEW:
        content["groups"] = {"k": 2}
        content["gan"] |= {"augment": ["translation", "cutout"]}
        lines.append(f"fewer than {FEW} images: two groups, and a GAN with augmentation")
    if max(sizes) > MANY:
        training |= {"epoch_steps": 500, "batch_size": 64}
        lines.append(f"more than {MANY:,} images: an epoch is 500 batches of 64, not a full pass")
    content["data"], content["training"] = data, content["training"] | training
    content["score"] = {"classifier": "packaged", "count": 100, "splits": 2}
    # the text
    head = ["The quickstart's method on other images; edit it, and run it again:"]
    head += [f"python harness/sweep.py {file}", "Every key: docs/sweep-file.md", "", *lines]
    sections = ["\n".join(f"# {line}".rstrip() for line in head) + "\n"]
    for key, value in content.items():
        text = f" {_yaml(value)}"
        if key == "data":
            text = "".join(f"\n  {name}: {_yaml(source)}" for name, source in value.items())
        comment = " ".join((Sweep.model_fields[key].description or "").split())
        sections.append(f"# {comment}\n{key}:{text}\n")
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(sections))
    return file, [*lines, f"{file} is written, to be edited for other settings"]


def _yaml(value: Any) -> str:
    """Return a value as one line of YAML."""
    text: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6
    )
    return text.removesuffix("...\n").strip()
