"""The adversarial game of one run: both networks, their optimizers, and a step of each.

Knows neither stages nor epochs nor scores: it is given batches of real images, and what is
random comes from the generators that its caller passes.
"""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from featgan.gans.augment import augment
from featgan.gans.cuda_graph import Recorded
from featgan.gans.losses import LOSSES, gradient_penalty, r1_penalty
from featgan.gans.registry import build, to_uint8
from featgan.gans.settings import RECIPES, GanSettings, Optimizer, recipe
from featgan.precision import resolve
from featgan.settings import TrainingSettings


class Gan:
    """Generator and discriminator on `device`, initial weights a function of `seed` alone.

    What the settings leave open is as the network's authors published it.
    """

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
        published = recipe(settings)
        self.loss = LOSSES[settings.loss or published.loss]
        self.optimizer = _chosen(training, published.optimizer)
        generator, discriminator = build(settings, image_size, seed)
        self.trained = generator.to(device).to(memory_format=torch.channels_last)
        self.discriminator = discriminator.to(device).to(memory_format=torch.channels_last)
        self.generator = copy.deepcopy(self.trained).eval() if settings.ema else self.trained
        """What is measured and saved: the running average, or the trained generator itself."""
        self._adam_g, self._adam_d = (
            torch.optim.Adam(
                network.parameters(),
                self.optimizer.learning_rate,
                (self.optimizer.beta1, self.optimizer.beta2),
                fused=True,
                capturable=device.type == "cuda",
            )
            for network in (self.trained, self.discriminator)
        )
        self._recordings: dict[bool, Recorded] = {}
        """On a GPU, of a step with and without G's turn."""
        # Of a user's own networks nobody knows whether a step is always the same work. One stream
        # for all: cuBLAS keeps a workspace for each that it has met.
        recordable = device.type == "cuda" and settings.network in RECIPES
        self._beside = torch.cuda.Stream() if recordable else None
        self.steps = 0
        """Steps of the whole run: no part of the model, so a rewind leaves it alone."""

    def step(self, real: Tensor, noise: torch.Generator, weights: Tensor | None = None) -> Tensor:
        """One update of D on `real` [n, 3, S, S] and as many generated images.

        Every `d_steps`-th step then updates G. `weights` [n] of mean 1 multiply each real
        image's part of D's loss. Returns the losses of D (penalties included) and G and the
        means of sigmoid(D) on real and generated images: a tally [4], which the next step may
        overwrite. On a GPU batches keep their size, and `noise` is always the same generator.
        """
        self.steps += 1
        is_gs_turn = self.steps % self.optimizer.d_steps == 0
        update = self._update_both if is_gs_turn else self._update_d
        given = (noise, real) if weights is None else (noise, real, weights)
        if self._beside is None:
            tally = update(*given)
        else:
            if is_gs_turn not in self._recordings:
                self._recordings[is_gs_turn] = Recorded(self._beside)
            tally = self._recordings[is_gs_turn](update, *given)
        if is_gs_turn and self.settings.ema:
            self._average()
        return tally

    @torch.inference_mode()
    def images(self, latent: Tensor) -> Tensor:
        """Images float32 [n, 3, S, S] in [-1, 1] from noise [n, latent], in eval mode."""
        self.generator.eval()
        with self._autocast():
            images = self.generator(latent)
        self.trained.train()
        return images.float()

    def generate(self, latent: Tensor) -> Tensor:
        """The same images as they would be saved: uint8 [n, 3, S, S]."""
        return to_uint8(self.images(latent))

    def is_finite(self) -> bool:
        """Whether no value of networks and optimizers is NaN or infinite; the host waits once.

        An infinite moment would hold its parameter fast for ever.
        """
        networks = (self.trained, self.discriminator, self.generator)
        values = [value for network in networks for value in network.state_dict().values()]
        moments = [*self._adam_g.state.values(), *self._adam_d.state.values()]
        values += [value.to(self.device) for each in moments for value in each.values()]
        return bool(torch.stack([value.isfinite().all() for value in values]).all())

    def state(self) -> dict[str, Any]:
        """A copy of networks and optimizers as they are now."""
        return copy.deepcopy({name: part.state_dict() for name, part in self._parts().items()})

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from networks and optimizers as `state()` found them."""
        for name, part in self._parts().items():
            part.load_state_dict(copy.deepcopy(state[name]))
        for adam in (self._adam_g, self._adam_d):  # of a state from a CPU it is not
            for group in adam.param_groups:
                group["capturable"] = self.device.type == "cuda"
        if self._recordings:  # Adam's moments lie elsewhere now
            self._recordings.clear()
            torch.cuda.empty_cache()

    def _update_d(
        self, noise: torch.Generator, real: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """One update of D; the tally."""
        with torch.no_grad():
            fake = self._fake(len(real), noise)
        on_real, on_fake, loss_d = self._play_d(fake, noise, real, weights)
        return _tally(loss_d, self.loss.generator(on_fake).mean(), on_real, on_fake)

    def _update_both(
        self, noise: torch.Generator, real: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """One update of D, then one of G on the same generated images; the tally."""
        fake = self._fake(len(real), noise)
        on_real, on_fake, loss_d = self._play_d(fake, noise, real, weights)
        return _tally(loss_d, self._play_g(fake, noise), on_real, on_fake)

    def _fake(self, count: int, noise: torch.Generator) -> Tensor:
        latent = torch.randn((count, self.settings.latent), generator=noise, device=self.device)
        with self._autocast():
            return self.trained(latent)

    def _play_d(
        self, fake: Tensor, noise: torch.Generator, real: Tensor, weights: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """D's turn: its logits on real and generated images, and its loss, before the update."""
        real, seen = self._augmented(real, noise), self._augmented(fake.detach(), noise)
        with self._autocast():
            on_real, on_fake = self.discriminator(real, seen).float().chunk(2)
        of_real = self.loss.real(on_real)
        if weights is not None:
            of_real = of_real * weights
        loss = of_real.mean() + self.loss.fake(on_fake).mean()
        loss = self._penalised(loss, real, seen, noise)
        self._adam_d.zero_grad()
        loss.backward()
        self._adam_d.step()
        return on_real, on_fake, loss

    def _play_g(self, fake: Tensor, noise: torch.Generator) -> Tensor:
        """G's turn: its loss before the update."""
        self.discriminator.requires_grad_(False)  # spares D's weight gradients in G's update
        seen = self._augmented(fake, noise)
        with self._autocast():
            on_fake = self.discriminator(seen).float()
        loss = self.loss.generator(on_fake).mean()
        self._adam_g.zero_grad()
        loss.backward()
        self._adam_g.step()
        self.discriminator.requires_grad_(True)
        return loss

    def _penalised(
        self, loss: Tensor, real: Tensor, fake: Tensor, noise: torch.Generator
    ) -> Tensor:
        """D's loss with the penalties on its slope: fp32; beside bf16, TF32 where a GPU has it."""
        if self.loss.gradient_penalty:
            shares = torch.rand(len(real), generator=noise, device=self.device)
            slope = gradient_penalty(self.discriminator, real, fake.float(), shares)
            loss = loss + self.loss.gradient_penalty * slope
        if self.settings.r1:
            loss = loss + self.settings.r1 * r1_penalty(self.discriminator, real)
        return loss

    def _augmented(self, images: Tensor, noise: torch.Generator) -> Tensor:
        kinds = self.settings.augment
        return augment(images.float(), kinds, noise) if kinds else images

    def _average(self) -> None:
        """Move the running average towards the trained generator; batch statistics are copied.

        Its decay rises from 2/11 to `ema`, or the first weights, which are noise, would stay in
        it for long (the warm-up of TensorFlow's ExponentialMovingAverage).
        """
        updates = self.steps // self.optimizer.d_steps
        decay = min(self.settings.ema, (1 + updates) / (10 + updates))
        with torch.no_grad():
            pair = [[*network.parameters()] for network in (self.generator, self.trained)]
            get_ema_multi_avg_fn(decay)(*pair, None)
            pairs = zip(self.generator.buffers(), self.trained.buffers(), strict=True)
            for average, value in pairs:
                average.copy_(value)

    def _parts(self) -> dict[str, Any]:
        parts = {
            "generator": self.trained,
            "discriminator": self.discriminator,
            "adam_g": self._adam_g,
            "adam_d": self._adam_d,
        }
        return parts | {"average": self.generator} if self.settings.ema else parts

    def _autocast(self) -> torch.autocast:
        enabled = self.precision != torch.float32
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


def _tally(loss_d: Tensor, loss_g: Tensor, on_real: Tensor, on_fake: Tensor) -> Tensor:
    """Losses, and means of sigmoid(D) on real and generated images: [4]."""
    means = on_real.sigmoid().mean(), on_fake.sigmoid().mean()
    return torch.stack((loss_d, loss_g, *means)).detach()


def _chosen(training: TrainingSettings, published: Optimizer) -> Optimizer:
    """The published optimizer settings, but for those that the run's settings name."""
    chosen = {field.name: getattr(training, field.name) for field in fields(Optimizer)}
    return Optimizer(
        **{
            name: getattr(published, name) if value is None else value
            for name, value in chosen.items()
        }
    )
