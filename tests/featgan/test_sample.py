"""Images from a trained generator: the command and its grid."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from featgan import sample
from featgan.gans.generator_file import generator_bytes
from featgan.gans.registry import build
from featgan.gans.settings import GanSettings


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    gan = GanSettings(width=4, latent=8)
    (folder / sample.GENERATOR).write_bytes(generator_bytes(build(gan, 32, seed=0)[0], gan, 32))
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


def test_the_first_images_do_not_depend_on_their_number(run, tmp_path):
    few, many = str(tmp_path / "few.png"), str(tmp_path / "many.png")
    sample.main([str(run), "--count", "3", "--out", few])
    sample.main([str(run), "--count", "70", "--out", many])
    few, many = (np.asarray(Image.open(file))[:32, :66].astype(int) for file in (few, many))
    assert np.abs(few - many).max() <= 1


def test_a_conditional_generator_shows_a_class_in_each_row(tmp_path):
    gan, classes = (
        GanSettings(network="sngan", conditional=True, width=4, latent=8),
        {"a": 9, "b": 1},
    )
    network, _ = build(gan, 32, seed=0, classes=2)
    torch.nn.init.zeros_(network.dense.weight)  # images depend on the class alone
    for name, values in network.named_parameters():
        if name.endswith("shift"):
            torch.nn.init.normal_(values)
    path, out = tmp_path / "generator.safetensors", str(tmp_path / "grid.png")
    path.write_bytes(generator_bytes(network, gan, 32, classes))
    assert sample.main([str(path), "--count", "4", "--out", out]) == 0
    pixels = np.asarray(Image.open(out))
    first, second = pixels[:32], pixels[34:]
    assert all((row[:, :32] == row[:, 34:]).all() for row in (first, second))
    assert (first != second).any()


def test_user_defined_networks_are_imported_when_named(run, tmp_path, monkeypatch, capsys):
    """The file alone imports nothing."""
    (tmp_path / "user_sampled.py").write_text("from featgan.gans.dcgan import dcgan as mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    gan = GanSettings(network="user_sampled:mine", width=4, latent=8)
    file = tmp_path / "own.safetensors"
    file.write_bytes(generator_bytes(build(gan, 32, seed=0)[0], gan, 32))
    sys.modules.pop("user_sampled")
    out = ["--count", "2", "--out", str(tmp_path / "own.png")]
    assert sample.main([str(file), *out]) == 2
    assert "--network user_sampled:mine" in capsys.readouterr().err
    assert "user_sampled" not in sys.modules
    assert sample.main([str(file), "--network", "user_sampled:mine", *out]) == 0
    assert np.asarray(Image.open(tmp_path / "own.png")).shape == (32, 66, 3)
    sys.modules.pop("user_sampled")


def test_a_missing_file_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert sample.main([str(tmp_path)]) == 2
    assert "no such file" in capsys.readouterr().err


def test_a_damaged_generator_is_one_line_and_exit_code_2(run, tmp_path, capsys):
    content = bytearray((run / sample.GENERATOR).read_bytes())
    content[-1] ^= 1  # of the last weight
    file = tmp_path / "flipped.safetensors"
    file.write_bytes(content)
    assert sample.main([str(file), "--out", str(tmp_path / "x.png")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {file}: cannot be read (damaged or edited")
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "x.foo"], "--out x.foo: unknown file extension: .foo; name"),
        (["--out", "d.png"], "--out d.png: Is a directory; name a picture"),
        (["--out", "/dev/null/x.png"], "--out /dev/null/x.png: "),
        (["--out", "file/x.png"], "--out file/x.png: "),
        (["--out", "x"], "--out x: unknown file extension:"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_option_is_one_line_and_exit_code_2(
    run, tmp_path, monkeypatch, capsys, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.png").mkdir()
    (tmp_path / "file").touch()
    assert sample.main([str(run), "--count", "1", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert len(error.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"d.png", "file"}
