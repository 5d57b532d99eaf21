"""The networks of each recipe, and user-defined ones."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from featgan.errors import UserError
from featgan.gans import dcgan, r3gan, resnet
from featgan.gans.settings import GanSettings
from featgan.seeds import derive, stream
from featgan.user_code import resolve, user_code_errors

Networks = Callable[..., tuple[nn.Module, nn.Module]]
"""Function of settings and image size S that returns a generator (noise [n, latent] -> images
[n, 3, S, S] in [-1, 1]) and a discriminator (images -> logits [n]).

A conditional one also takes the number of classes. Its generator takes noise and classes
[n, latent + classes], its discriminator an argument `classes` [n, classes]."""

NETWORKS: dict[str, Networks] = {
    "dcgan": dcgan.dcgan,
    "sngan": resnet.sngan,
    "wgan-gp": resnet.wgan_gp,
    "r3gan": r3gan.r3gan,
}
"""The networks of each recipe of `featgan.gans.settings`."""


class PerBatchDiscriminator(nn.Module):
    """A user-defined discriminator, which takes one batch, called once for each batch."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *batches: Tensor) -> Tensor:
        """Return the logits [n] of all images of `batches`."""
        return torch.cat([self.network(batch).flatten() for batch in batches])


def build(
    gan: GanSettings, image_size: int, seed: int, classes: int = 0
) -> tuple[nn.Module, nn.Module]:
    """Return generator and discriminator on the CPU; initial weights depend on `seed` alone.

    Raises UserError if user-defined networks are missing, fail, or do not fit together.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "networks"))
        networks = untrained_networks(gan, image_size, classes)
    if gan.network == "dcgan":
        for network in networks:
            dcgan.initialise(network, stream(seed, "weights", type(network).__name__))
    return networks


def untrained_networks(
    gan: GanSettings, image_size: int, classes: int = 0
) -> tuple[nn.Module, nn.Module]:
    """Return generator and discriminator with weights from PyTorch's global generator.

    Raises UserError if user-defined networks are missing, fail, or do not fit together.
    """
    if gan.network in NETWORKS:
        more = (classes,) if gan.conditional else ()
        return NETWORKS[gan.network](gan, image_size, *more)
    user_defined: Networks = resolve(gan.network, NETWORKS)
    with user_code_errors(gan.network):
        generator, discriminator = user_defined(gan, image_size)
        with torch.no_grad():
            images = generator.eval()(torch.zeros(2, gan.latent))
            if images.shape != (2, 3, image_size, image_size):
                raise UserError(
                    f"gan.network: {gan.network}: the generator returns {[*images.shape]} for 2 "
                    f"noise vectors, not [2, 3, {image_size}, {image_size}]"
                )
            logits = discriminator.eval()(images)
        if logits.numel() != 2:
            raise UserError(
                f"gan.network: {gan.network}: the discriminator returns {logits.numel()} values "
                "for 2 images, not one logit each"
            )
        return generator.train(), PerBatchDiscriminator(discriminator.train())


def to_uint8(images: Tensor) -> Tensor:
    """Return images in [-1, 1] as they would be saved: uint8, rounded to the nearest step."""
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
