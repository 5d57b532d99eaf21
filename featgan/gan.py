"""The adversarial game of one run: both networks, their optimizers, and a step of each.

Knows neither stages nor epochs nor scores: it is given batches of real images, and what is
random comes from the generators that its caller passes.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from featgan.networks import GanSettings, build, to_uint8
from featgan.precision import resolve

if TYPE_CHECKING:
    from featgan.trainer import TrainingSettings


class Gan:
    """Generator and discriminator on `device`, initial weights a function of `seed` alone."""

    def __init__(
        self,
        settings: GanSettings,
        training: TrainingSettings,
        image_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.settings, self.device = settings, device
        self.precision = resolve(training.precision, device)
        generator, discriminator = build(settings, image_size, seed)
        self.generator = generator.to(device).to(memory_format=torch.channels_last)
        self.discriminator = discriminator.to(device).to(memory_format=torch.channels_last)
        self._adam_g, self._adam_d = (
            torch.optim.Adam(
                network.parameters(),
                training.learning_rate,
                (training.beta1, training.beta2),
                fused=True,
            )
            for network in (self.generator, self.discriminator)
        )
        self.steps = 0
        """Steps of the whole run: no part of the model, so a rewind leaves it alone."""

    def step(self, real: Tensor, noise: torch.Generator, weights: Tensor | None = None) -> Tensor:
        """One update of D on `real` [n, 3, S, S] and as many generated images, then one of G.

        `weights` [n] of mean 1 multiply each real image's part of D's loss. Returns the losses
        of D and G and the mean probabilities D(real) and D(fake): a tally [4].

        The non-saturating loss: D and G each minimise a cross-entropy (Goodfellow et al. 2014).
        """
        latent = torch.randn((len(real), self.settings.latent), generator=noise, device=self.device)
        with self._autocast():
            fake = self.generator(latent)
            on_real, on_fake = self.discriminator(real, fake.detach()).float().chunk(2)
        of_real = softplus(-on_real)
        if weights is not None:
            of_real = of_real * weights
        loss_d = of_real.mean() + softplus(on_fake).mean()
        self._adam_d.zero_grad()
        loss_d.backward()
        self._adam_d.step()

        self.discriminator.requires_grad_(False)  # spares D's weight gradients in G's update
        with self._autocast():
            on_fake_again = self.discriminator(fake).float()
        loss_g = softplus(-on_fake_again).mean()
        self._adam_g.zero_grad()
        loss_g.backward()
        self._adam_g.step()
        self.discriminator.requires_grad_(True)
        self.steps += 1
        tally = loss_d, loss_g, on_real.sigmoid().mean(), on_fake.sigmoid().mean()
        return torch.stack(tally).detach()

    @torch.inference_mode()
    def images(self, latent: Tensor) -> Tensor:
        """Images float32 [n, 3, S, S] in [-1, 1] from noise [n, latent], in eval mode."""
        self.generator.eval()
        with self._autocast():
            images = self.generator(latent)
        self.generator.train()
        return images.float()

    def generate(self, latent: Tensor) -> Tensor:
        """The same images as they would be saved: uint8 [n, 3, S, S]."""
        return to_uint8(self.images(latent))

    def state(self) -> dict[str, Any]:
        """A copy of networks and optimizers as they are now."""
        return copy.deepcopy({name: part.state_dict() for name, part in self._parts().items()})

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from networks and optimizers as `state()` found them."""
        for name, part in self._parts().items():
            part.load_state_dict(copy.deepcopy(state[name]))

    def _parts(self) -> dict[str, Any]:
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "adam_g": self._adam_g,
            "adam_d": self._adam_d,
        }

    def _autocast(self) -> torch.autocast:
        enabled = self.precision != torch.float32
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)
