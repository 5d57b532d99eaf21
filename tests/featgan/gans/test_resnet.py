"""The residual networks against the tables of the papers that published them."""

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, batch_norm, conv2d, interpolate

from featgan.gans.registry import build
from featgan.gans.resnet import ClassNorm, Down, Up
from featgan.gans.settings import GanSettings

pytestmark = pytest.mark.usefixtures("one_thread")


def pair(network, size, width=2, latent=5):
    return build(GanSettings(network=network, width=width, latent=latent), size, seed=0)


def parameters(network):
    return sum(value.numel() for value in network.parameters())


@pytest.mark.parametrize(
    ("network", "size", "of_generator", "of_discriminator"),
    [
        # SNGAN, table 4. G: dense 128·4096 + 4096; three blocks of two batch norms of 2·256,
        # two convolutions of 9·256² + 256 and a shortcut of 256² + 256: 1,246,976 each; batch
        # norm 512; convolution 9·256·3 + 3. D: blocks of 151,680 (3 to 128), 311,680 (with
        # shortcut), twice 295,168; dense 129.
        ("sngan", 32, 528_384 + 3 * 1_246_976 + 512 + 6_915, 151_680 + 311_680 + 2 * 295_168 + 129),
        # WGAN-GP, CIFAR-10: the same with 128 channels everywhere.
        ("wgan-gp", 32, 264_192 + 3 * 312_192 + 256 + 3_459, 1_053_825),
        # SNGAN, table 6. G: dense to 4·4·1024; blocks to 1024, 512, 256, 128, 64. D: blocks to
        # 64, 128, 256, 512, 1024, 1024; dense 1025.
        (
            "sngan",
            128,
            2_113_536 + 19_930_112 + 7_606_784 + 1_902_848 + 476_288 + 119_360 + 128 + 1_731,
            38_976 + 119_104 + 475_776 + 1_901_824 + 7_604_736 + 18_876_416 + 1_025,
        ),
    ],
)
def test_parameters_at_the_published_widths(network, size, of_generator, of_discriminator):
    generator, discriminator = pair(network, size, width=64, latent=128)
    assert parameters(generator) == of_generator
    assert parameters(discriminator) == of_discriminator


@pytest.mark.parametrize(
    ("size", "widths"), [(64, [16, 8, 4, 2, 1]), (256, [16, 16, 16, 8, 4, 2, 1])]
)
def test_channels_between_the_published_sizes_follow_table_6(size, widths):
    generator, discriminator = pair("sngan", size, width=1)
    ups = [block for block in generator.layers if isinstance(block, Up)]
    downs = [block for block in discriminator.layers if isinstance(block, Down)]
    assert generator.dense.out_features == 16 * widths[0]
    assert [block.residual[3].out_channels for block in ups] == widths[1:]
    assert [block.residual[3].out_channels for block in downs] == widths[::-1]


@pytest.mark.parametrize("network", ["sngan", "wgan-gp"])
@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_shapes_and_range_at_every_image_size(network, size):
    generator, discriminator = pair(network, size)
    images = generator(torch.randn(2, 5))
    assert images.shape == (2, 3, size, size)
    assert images.abs().max() <= 1
    assert discriminator(images, images).shape == (4,)


def test_blocks_are_the_published_ones():
    """Written out: upsampling and pooling where the papers' code has them."""
    values = torch.randn(2, 4, 6, 6)
    up, down = Up(4, 3).eval(), Down(4, 5, halve=True, first=False)
    norms, convs = (up.residual[0], up.residual[4]), (up.residual[3], up.residual[6])
    inner = convs[0](interpolate(norms[0](values).relu(), scale_factor=2))
    shortcut = up.shortcut[0](interpolate(values, scale_factor=2))
    torch.testing.assert_close(up(values), convs[1](norms[1](inner).relu()) + shortcut)
    inner = down.residual[3](down.residual[1](values.relu()).relu())
    expected = avg_pool2d(inner, 2) + avg_pool2d(down.shortcut[1](values), 2)
    torch.testing.assert_close(down(values), expected)
    first = Down(3, 5, halve=True, first=True)
    inner = first.residual[3](first.residual[1](values[:, :3]).relu())
    expected = avg_pool2d(inner, 2) + first.shortcut[1](avg_pool2d(values[:, :3], 2))
    torch.testing.assert_close(first(values[:, :3]), expected)
    same = Down(4, 4, halve=False, first=False)
    inner = same.residual[3](same.residual[1](values.relu()).relu())
    torch.testing.assert_close(same(values), inner + values)


def test_every_layer_of_sngans_d_has_spectral_norm_one():
    _, discriminator = pair("sngan", 32, width=4)
    for _ in range(30):  # power iterations: one for every batch seen in training
        discriminator(torch.randn(2, 3, 32, 32))
    discriminator.eval()
    layers = [m for m in discriminator.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 4 * 2 + 2 + 1
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, 0.02)


def test_the_critic_of_wgan_gp_normalises_nothing():
    _, critic = pair("wgan-gp", 32)
    kinds = {type(module) for module in critic.modules() if not [*module.children()]}
    assert kinds == {nn.Conv2d, nn.ReLU, nn.AvgPool2d, nn.Identity, nn.Linear}


@pytest.mark.parametrize(("network", "places"), [("sngan", 64), ("wgan-gp", 1)])
def test_logits_of_sngan_sum_and_of_wgan_gp_average_over_places(network, places):
    _, discriminator = pair(network, 32)
    discriminator.eval()
    images = torch.randn(3, 3, 32, 32)
    means = discriminator.layers(images).mean(dim=(2, 3)) * places
    expected = conv2d(means[:, :, None, None], discriminator.dense.weight[:, :, None, None])
    torch.testing.assert_close(discriminator(images), expected.flatten())


def test_initial_weights_have_the_published_variance():
    generator, _ = pair("wgan-gp", 32, width=64)
    conv, shortcut = generator.layers[0].residual[3], generator.layers[0].shortcut[0]
    assert conv.weight.var().item() == pytest.approx(2 * 2 / (2 * 9 * 128), rel=0.02)
    assert shortcut.weight.var().item() == pytest.approx(2 / (2 * 128), rel=0.05)
    assert conv.bias.abs().max() == 0


def test_a_class_has_its_own_scale_and_shift():
    norm, values = ClassNorm(4, 3), torch.randn(2, 4, 5, 5)
    classes = torch.eye(3)[[2, 0]]
    plain = batch_norm(values, None, None, training=True)
    torch.testing.assert_close(norm(values, classes), plain)  # at first: 1 and 0
    nn.init.normal_(norm.scale)
    nn.init.normal_(norm.shift)
    for image, number in enumerate([2, 0]):
        scale, shift = norm.scale[number, :, None, None], norm.shift[number, :, None, None]
        expected = plain[image] * scale + shift
        torch.testing.assert_close(norm(values, classes)[image], expected)


def test_sngans_discriminator_projects_on_the_class():
    gan = GanSettings(network="sngan", conditional=True, width=2, latent=5)
    generator, discriminator = build(gan, 32, 0, classes=3)
    discriminator.eval()
    images, classes = torch.randn(2, 3, 32, 32), torch.eye(3)[[2, 0]]
    features = discriminator.layers(images).sum(dim=(2, 3))
    projections = (features * discriminator.embedding.weight.T[[2, 0]]).sum(dim=1)
    expected = discriminator.dense(features).flatten() + projections
    torch.testing.assert_close(discriminator(images, images, classes=classes), expected.repeat(2))
    assert hasattr(discriminator.embedding, "parametrizations")  # spectral norm here too
    norms = [m for m in generator.modules() if isinstance(m, ClassNorm)]
    assert len(norms) == 2 * 3
    for norm in norms:
        nn.init.normal_(norm.scale)
    noise = torch.randn(2, 5)
    assert not torch.equal(
        *(generator(torch.cat((noise, c), 1)) for c in (classes, classes.flip(0)))
    )
