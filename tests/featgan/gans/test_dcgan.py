import pytest
import torch

from featgan.gans.dcgan import FromPoint, ToPoint
from featgan.gans.registry import build
from featgan.gans.settings import GanSettings

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = GanSettings(width=4, latent=6)


def test_parameters_of_the_64_pixel_dcgan():
    """The counts of the well-known 64-pixel DCGAN of width 64 and latent length 100."""
    networks = build(GanSettings(width=64, latent=100), 64, seed=0)
    counts = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert counts == [3_576_704, 2_765_568]


def test_initial_weights_are_drawn_as_dcgan_says():
    generator, _ = build(GanSettings(width=64), 32, seed=0)
    conv, norm = generator.layers[3], generator.layers[4]
    assert conv.weight.std().item() == pytest.approx(0.02, rel=0.01)
    assert norm.weight.mean().item() == pytest.approx(1.0, abs=0.01)
    assert norm.bias.abs().max() == 0


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_first_and_last_layer_equal_convolutions(memory_format):
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
