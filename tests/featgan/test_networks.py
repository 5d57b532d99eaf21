import pytest
import torch

from featgan.errors import UserError
from featgan.networks import (
    Discriminator,
    FromPoint,
    GanSettings,
    Generator,
    ToPoint,
    build,
    generator_bytes,
    load_generator,
    to_uint8,
)

SMALL = GanSettings(width=4, latent=6)


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_shapes_and_range_at_every_image_size(size):
    generator, discriminator = build(SMALL, size, seed=0)
    images = generator(torch.randn(2, 6))
    assert images.shape == (2, 3, size, size)
    assert images.abs().max() <= 1
    assert discriminator(images).shape == (2,)


def test_parameters_of_the_64_pixel_dcgan():
    """The counts of the well-known 64-pixel DCGAN of width 64 and latent length 100."""
    gan = GanSettings(width=64, latent=100)
    count = lambda network: sum(p.numel() for p in network.parameters())  # noqa: E731
    assert count(Generator(gan, 64)) == 3_576_704
    assert count(Discriminator(gan, 64)) == 2_765_568


def test_initial_weights_depend_on_the_seed_alone():
    first = build(SMALL, 32, seed=1)
    torch.manual_seed(123)
    again, other = build(SMALL, 32, seed=1), build(SMALL, 32, seed=2)
    for a, b, c in zip(first, again, other, strict=True):
        a, b, c = (torch.cat([p.flatten() for p in n.parameters()]) for n in (a, b, c))
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build(SMALL, 32, seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_initial_weights_are_drawn_as_dcgan_says():
    generator, _ = build(GanSettings(width=64), 32, seed=0)
    conv, norm = generator.layers[3], generator.layers[4]
    assert conv.weight.std().item() == pytest.approx(0.02, rel=0.01)
    assert norm.weight.mean().item() == pytest.approx(1.0, abs=0.01)
    assert norm.bias.abs().max() == 0


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_first_and_last_layer_are_the_convolutions_they_stand_for(memory_format):
    for kind, side, convolve in (
        (FromPoint, 1, torch.nn.functional.conv_transpose2d),
        (ToPoint, 4, torch.nn.functional.conv2d),
    ):
        layer = kind(6, 3, 4, bias=False).to(memory_format=memory_format)
        values = torch.randn(5, 6, side, side)
        torch.testing.assert_close(layer(values), convolve(values, layer.weight))


def test_batches_judged_together_are_normalised_apart():
    real, fake = torch.rand(2, 4, 3, 32, 32) * torch.tensor([1.0, 0.1]).view(2, 1, 1, 1, 1)
    together, apart = (build(SMALL, 32, seed=0)[1] for _ in range(2))
    expected = torch.cat([apart(real), apart(fake)])
    torch.testing.assert_close(together(real, fake), expected)
    for name, value in apart.state_dict().items():  # running statistics too
        torch.testing.assert_close(together.state_dict()[name], value, msg=name)
    assert not torch.allclose(apart(torch.cat([real, fake])), expected, atol=1e-3)


def test_bytes_of_an_image_are_rounded_to_the_nearest():
    images = torch.tensor([-1.0, -0.999, 0.0, 0.9999, 1.0, 1.5, -2.0])
    assert to_uint8(images).tolist() == [0, 0, 128, 255, 255, 255, 0]


def test_a_saved_generator_carries_its_configuration(tmp_path):
    generator, _ = build(SMALL, 64, seed=3)
    path = tmp_path / "generator.safetensors"
    path.write_bytes(generator_bytes(generator))
    loaded = load_generator(path)
    noise = torch.randn(3, 6)
    assert (loaded.image_size, loaded.gan) == (64, SMALL)
    assert not loaded.training
    assert torch.equal(loaded(noise), generator.eval()(noise))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x10" + b"\0" * 30])
def test_a_file_that_is_no_generator_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.safetensors: not a readable generator"):
        load_generator(path)
