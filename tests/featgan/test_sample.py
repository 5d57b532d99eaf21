"""Images from a trained generator: the command, the grid, the walk."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from featgan import sample
from featgan.gans.registry import build, generator_bytes
from featgan.gans.settings import GanSettings


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    generator, _ = build(GanSettings(width=4, latent=8), 32, seed=0)
    (folder / sample.GENERATOR).write_bytes(generator_bytes(generator))
    return folder


def test_grid_places_images_row_by_row_with_white_gaps():
    images = np.zeros((3, 3, 4, 4), np.uint8)
    images[1], images[2] = 100, 200
    pixels = np.asarray(sample.grid(images))
    assert pixels.shape == (10, 10, 3)
    assert [pixels[0, 0, 0], pixels[0, 6, 0], pixels[6, 0, 0], pixels[6, 6, 0]] == [
        0,
        100,
        200,
        255,
    ]
    assert (pixels[:, 4:6] == 255).all()


def test_command_writes_the_same_grid_for_the_same_seed(run, tmp_path, capsys):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        out = str(tmp_path / f"{name}.png")
        source = run if name == "a" else run / sample.GENERATOR
        assert sample.main([str(source), "--count", "5", "--seed", seed, "--out", out]) == 0
    a, b, c = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "abc")
    assert a.shape == (2 * 32 + 2, 3 * 32 + 2 * 2, 3)
    assert (a == b).all()
    assert (a != c).any()
    assert capsys.readouterr().out.splitlines()[0] == str(tmp_path / "a.png")


def test_separate_files_are_the_grids_images(run, tmp_path):
    sample.main([str(run), "--count", "12", "--out", str(tmp_path / "many")])
    sample.main([str(run), "--count", "12", "--columns", "12", "--out", str(tmp_path / "g.png")])
    files = sorted((tmp_path / "many").iterdir())
    assert [file.name for file in files][::11] == ["00.png", "11.png"]
    whole = np.asarray(Image.open(tmp_path / "g.png"))
    assert (np.asarray(Image.open(files[3])) == whole[:, 3 * 34 : 3 * 34 + 32]).all()


def test_walk_goes_from_one_noise_vector_to_another_on_the_arc(run):
    generator = sample.load_generator(run / sample.GENERATOR)
    start, end = sample.noise(generator, 2, seed=3)
    walk = sample.walk(generator, 5, seed=3)
    torch.testing.assert_close(walk[0], start)
    torch.testing.assert_close(walk[-1], end)
    angle = torch.nn.functional.cosine_similarity(start, end, dim=0).acos()
    torch.testing.assert_close(walk[2], (start + end) / (2 * torch.cos(angle / 2)))


def test_own_networks_are_imported_when_named(run, tmp_path, monkeypatch, capsys):
    """The file alone imports nothing."""
    (tmp_path / "own_sampled.py").write_text("from featgan.gans.dcgan import dcgan as mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    gan = GanSettings(network="own_sampled:mine", width=4, latent=8)
    file = tmp_path / "own.safetensors"
    file.write_bytes(generator_bytes(build(gan, 32, seed=0)[0]))
    sys.modules.pop("own_sampled")
    out = ["--count", "2", "--out", str(tmp_path / "own.png")]
    assert sample.main([str(file), *out]) == 2
    assert "--network own_sampled:mine" in capsys.readouterr().err
    assert "own_sampled" not in sys.modules
    assert sample.main([str(file), "--network", "own_sampled:mine", *out]) == 0
    assert np.asarray(Image.open(tmp_path / "own.png")).shape == (32, 66, 3)
    sys.modules.pop("own_sampled")


def test_a_file_that_is_not_there_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert sample.main([str(tmp_path)]) == 2
    assert "no such file; give a run's folder" in capsys.readouterr().err


def test_a_damaged_generator_is_one_line_and_exit_code_2(run, tmp_path, capsys):
    content = bytearray((run / sample.GENERATOR).read_bytes())
    content[-1] ^= 1  # of the last weight
    file = tmp_path / "flipped.safetensors"
    file.write_bytes(content)
    assert sample.main([str(file), "--out", str(tmp_path / "x.png")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {file}: not a readable generator file (damaged or edited")
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--out", "x.foo"], "--out x.foo: unknown file extension: .foo; name"),
        (["--out", "d.png"], "--out d.png: Is a directory; name a picture or a folder"),
        (["--out", "/dev/null/x.png"], "--out /dev/null/x.png: "),
        (["--out", "file/x.png"], "--out file/x.png: "),
        (["--out", "file/x"], "--out file/x: "),
        (["--count", "2000", "--columns", "1", "--out", "x.jpg"], "--out x.jpg: "),
        (["--count", "100000000000"], "--count 100000000000: more than 100,000 images at a time"),
        (["--network", "nope"], "--network nope: "),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_be_made_is_one_line_and_exit_code_2(
    run, tmp_path, monkeypatch, capsys, options, told
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.png").mkdir()
    (tmp_path / "file").touch()
    assert sample.main([str(run), "--count", "1", *options]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {told}")
    assert len(said.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"d.png", "file"}


def test_more_columns_than_images_are_as_many(run, tmp_path):
    out = tmp_path / "g.png"
    sample.main([str(run), "--count", "3", "--columns", "1000000000", "--out", str(out)])
    with Image.open(out) as picture:
        assert picture.size == (3 * 34 - 2, 32)


def test_letters_that_standard_output_lacks_are_spelled_and_a_closed_one_ends_quietly(
    run, tmp_path
):
    out = tmp_path / "\xe9.png"
    command = [sys.executable, "-m", "featgan.sample", str(run), "--count", "1", "--out", str(out)]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    told = subprocess.run(command, capture_output=True, env=environment)
    assert (told.returncode, told.stderr) == (0, b"")
    assert told.stdout.endswith(b"\\xe9.png\n")
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as closed:
        told = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE)
    assert (told.returncode, told.stderr) == (1, b"")
