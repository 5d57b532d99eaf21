"""The networks of R3GAN against what its authors published."""

import math

import pytest
import torch
from torch.nn.functional import conv2d, conv_transpose2d

from featgan.gans.r3gan import Discriminator, Generator, Residual, down, up
from featgan.gans.registry import build, untrained_networks
from featgan.gans.settings import GanSettings

pytestmark = pytest.mark.usefixtures("one_thread")

FILTER = torch.tensor([1.0, 3.0, 3.0, 1.0]).outer(torch.tensor([1.0, 3.0, 3.0, 1.0]))[None, None]


def parameters(network):
    return sum(value.numel() for value in network.parameters())


@pytest.mark.parametrize(
    ("preset", "width", "size", "of_generator", "of_discriminator"),
    [
        ("CIFAR-10", 768, 32, 20_732_160, 20_683_776),
        ("FFHQ-64", 384, 64, 22_429_824, 22_381_440),
        ("FFHQ-256", 96, 256, 23_057_952, 23_009_568),
        ("ImageNet-32", 1536, 32, 82_752_000, 82_655_232),
    ],
)
def test_parameters_of_the_published_presets(preset, width, size, of_generator, of_discriminator):
    """Counted in the authors' networks; without classes."""
    with torch.device("meta"):
        generator, discriminator = untrained_networks(
            GanSettings(network="r3gan", width=width, latent=64), size
        )
    assert parameters(generator) == of_generator
    assert parameters(discriminator) == of_discriminator


@pytest.mark.parametrize(
    ("preset", "width", "classes", "of_generator", "of_discriminator"),
    [
        ("CIFAR-10", 768, 10, 20_781_952, 21_280_512),
        ("ImageNet-32", 1536, 1000, 82_914_304, 86_548_992),
    ],
)
def test_parameters_of_the_presets_with_classes(
    preset, width, classes, of_generator, of_discriminator
):
    gan = GanSettings(network="r3gan", conditional=True, width=width, latent=64)
    with torch.device("meta"):
        generator, discriminator = untrained_networks(gan, 32, classes)
    assert parameters(generator) == of_generator
    assert parameters(discriminator) == of_discriminator


def test_parameters_of_imagenet_at_64_pixels():
    """No width gives it: 1536 channels at every size."""
    with torch.device("meta"):
        networks = Generator(64, [1536] * 5), Discriminator([1536] * 5)
        of_classes = Generator(64, [1536] * 5, 1000), Discriminator([1536] * 5, 1000)
    assert [parameters(network) for network in networks] == [103_408_128, 103_311_360]
    assert [parameters(network) for network in of_classes] == [103_570_432, 107_205_120]


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_shapes_at_every_image_size(size):
    generator, discriminator = build(GanSettings(network="r3gan", width=16, latent=5), size, 0)
    images = generator(torch.randn(2, 5))
    assert images.shape == (2, 3, size, size)
    assert discriminator(images, images).shape == (4,)


def test_sizes_change_by_the_published_filter():
    """As the authors have it: zeros around, so that borders are darker."""
    values = torch.randn(2, 1, 6, 6)
    larger = conv_transpose2d(values, FILTER / 16, stride=2, padding=1)
    torch.testing.assert_close(up()(values), larger)
    torch.testing.assert_close(down()(values), conv2d(values, FILTER / 64, stride=2, padding=1))
    assert up()(torch.ones(1, 1, 2, 2))[0, 0, 0].tolist() == pytest.approx(
        [9 / 16, *[3 / 4] * 2, 9 / 16]
    )


def test_blocks_begin_as_the_identity_and_normalise_nothing():
    generator, discriminator = build(GanSettings(network="r3gan", width=16, latent=5), 32, 0)
    blocks = [
        m for net in (generator, discriminator) for m in net.modules() if isinstance(m, Residual)
    ]
    assert len(blocks) == 2 * 2 * 4
    values = torch.randn(2, 16, 4, 4)
    assert all(torch.equal(block(values), values) for block in blocks)
    assert not [*generator.buffers(), *discriminator.buffers()]


def test_initial_weights_have_the_published_deviation():
    """Fixup: the gain of a leaky ReLU, divided by the fourth root of the number of blocks."""
    generator = Generator(64, [128] * 4)
    gain = math.sqrt(2 / 1.04) / 8**0.25
    block = next(m for m in generator.modules() if isinstance(m, Residual))
    first, _, grouped, _, last = block.layers
    assert first.weight.std().item() == pytest.approx(gain / math.sqrt(128), rel=0.02)
    assert (grouped.groups, grouped.weight.shape) == (16, (256, 16, 3, 3))
    assert grouped.weight.std().item() == pytest.approx(gain / math.sqrt(16 * 9), rel=0.02)
    assert first.bias.abs().max() == last.weight.abs().max() == 0
    assert generator.dense.weight.std().item() == pytest.approx(1 / 8, rel=0.05)
    assert generator.basis.std().item() == pytest.approx(1, rel=0.05)
    discriminator = Discriminator([128] * 4)
    assert discriminator.basis.std().item() == pytest.approx(1 / 4, rel=0.05)
    assert Residual(1536, 8).layers[2].groups == 96


def test_a_class_enters_with_the_noise_and_as_a_projection():
    gan = GanSettings(network="r3gan", conditional=True, width=16, latent=5)
    generator, discriminator = build(gan, 32, 0, classes=3)
    noise, classes = torch.randn(2, 5), torch.eye(3)[[2, 0]]
    values = torch.cat((noise, generator.embedding.weight.T[[2, 0]]), dim=1)
    expected = generator.layers(generator.basis * generator.dense(values)[:, :, None, None])
    torch.testing.assert_close(generator(torch.cat((noise, classes), dim=1)), expected)
    images = torch.randn(2, 3, 32, 32)
    features = (discriminator.layers(images) * discriminator.basis).sum(dim=(2, 3))
    features = discriminator.dense(features)
    logits = (features * discriminator.embedding.weight.T[[2, 0]]).sum(dim=1)
    found = discriminator(images, images, classes=classes)  # the same classes for each batch
    torch.testing.assert_close(found, logits.repeat(2))
    deviation = Discriminator([256] * 4, classes=50).embedding.weight.std().item()
    assert deviation == pytest.approx(1 / math.sqrt(256 * 50), rel=0.05)
