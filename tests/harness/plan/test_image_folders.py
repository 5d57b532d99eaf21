"""The sweep file that `--images` writes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from featgan.errors import UserError
from harness.plan.image_folders import sweep_file
from harness.plan.load import load
from harness.plan.settings import Sweep
from harness.sources.base import Found, Row
from harness.sources.folder import FolderSource

TEMPLATE = Path(__file__).parents[3] / "sweeps" / "quickstart.yaml"


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the command is started in."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that makes a folder with an image, a hidden one, and a text."""

    def make(name: str) -> str:
        folder = tmp_path / name
        (folder / ".thumbs").mkdir(parents=True)
        for file in ("1.png", ".thumbs/1.png"):
            Image.new("RGB", (8, 8)).save(folder / file)
        (folder / "notes.txt").write_text("no image")
        return str(folder)

    return make


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that lets every folder hold so many images."""

    def hold(images: int) -> None:
        rows = [Row("1.png", b"1.png", None, "")] * images
        monkeypatch.setattr(FolderSource, "find", lambda *_: Found(rows))

    return hold


def test_the_file_is_the_quickstarts_method_without_labels(
    photos: Callable[[str], str], found: Callable[[int], None]
) -> None:
    found(600)
    file, lines = sweep_file([photos("photos")], TEMPLATE)
    assert file == Path("sweeps/photos.yaml")
    assert lines[:2] == ["photos: 600 images", "12 epochs a stage, an evaluation every 2"]
    sweep, quickstart = load(file), load(TEMPLATE)
    assert (sweep.gan, sweep.features, sweep.grid) == (
        quickstart.gan,
        quickstart.features,
        quickstart.grid,
    )
    assert sweep.claims == quickstart.claims
    assert sweep.score.classifier == "packaged"
    text = file.read_text()
    for key in ("data", "grid"):
        assert f"\n# {Sweep.model_fields[key].description}\n{key}:" in text


def test_what_few_and_many_images_change(
    photos: Callable[[str], str], found: Callable[[int], None]
) -> None:
    folder = photos("photos")
    found(199)
    few, lines = sweep_file([folder], TEMPLATE)
    assert "fewer than 200 images: two groups, and a GAN with augmentation" in lines
    sweep = load(few)
    assert (sweep.groups.k, sweep.gan.augment) == (2, ["translation", "cutout"])
    assert sweep.training.stage_epochs == 6 * sweep.training.evaluate_every == 6 * 8
    few.unlink()
    found(100_001)
    many, lines = sweep_file([folder], TEMPLATE)
    assert "more than 100,000 images: an epoch is 500 batches of 64, not a full pass" in lines
    sweep = load(many)
    assert (sweep.training.epoch_steps, sweep.training.stage_epochs) == (500, 6)
    assert sweep.groups.k == 3


def test_a_file_that_exists_is_run_as_it_is(photos: Callable[[str], str], work: Path) -> None:
    folder = photos("my photos")
    file, lines = sweep_file([folder], TEMPLATE)
    assert lines[0] == "my-photos: 1 images"  # neither the hidden one nor the text
    edited = file.read_text().replace("seed: [0, 1, 2]", "seed: [5]")
    file.write_text(edited)
    again, lines = sweep_file(["../my photos/"], TEMPLATE)
    assert (again, lines) == (file, ["sweeps/my-photos.yaml exists and is run as it is"])
    assert file.read_text() == edited
    with pytest.raises(UserError, match=r"its images are not those of .*/other/my photos"):
        sweep_file([photos("other/my photos")], TEMPLATE)
    assert file.read_text() == edited


def test_names_of_data_sets_and_file(photos: Callable[[str], str]) -> None:
    folders = [photos(name) for name in ("a/pics", "b/pics", "it's #1: a", "写真", "features")]
    file, _ = sweep_file([*folders[:2], folders[0]], TEMPLATE)
    assert file.name == "pics-pics-2.yaml"
    named = {name: source.files() for name, source in load(file).data.items()}
    assert named == {"pics": [folders[0]], "pics-2": [folders[1]]}
    files = {sweep_file([folder], TEMPLATE)[0]: folder for folder in folders[2:]}
    assert [file.stem for file in files] == ["it-s-1-a", "images", "features-images"]
    for file, folder in files.items():
        assert [source.files() for source in load(file).data.values()] == [[folder]]


def test_no_file_is_written_for_a_folder_without_images(tmp_path: Path, work: Path) -> None:
    (tmp_path / "none" / ".hidden").mkdir(parents=True)
    for folder in (str(tmp_path / "none"), str(tmp_path / "missing"), ""):
        with pytest.raises(UserError, match=r"no images in|there is no folder|name a folder"):
            sweep_file([folder], TEMPLATE)
    assert not (work / "sweeps").exists()
