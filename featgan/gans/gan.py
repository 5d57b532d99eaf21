"""The GAN of one run: both networks, their optimizers, and the training step.

Does not know stages, epochs or scores. Its caller passes batches of real images and the random
generators to draw from.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from featgan.gans.augment import augment
from featgan.gans.cuda_graph import CudaGraph
from featgan.gans.generator_file import generator_bytes
from featgan.gans.losses import LOSSES, gradient_penalty, top_k_mean, zero_centred_penalty
from featgan.gans.registry import NETWORKS, build, to_uint8
from featgan.gans.schedules import BurnIn, RunLength, ScheduledAdam, top_k
from featgan.gans.settings import GanSettings, recipe
from featgan.precision import resolve
from featgan.settings import TrainingSettings


class Gan:
    """Generator and discriminator on `device`; their initial weights depend on `seed` alone.

    Settings that are None take the values published for the network.
    """

    def __init__(
        self,
        settings: GanSettings,
        training: TrainingSettings,
        image_size: int,
        seed: int,
        device: torch.device,
        *,
        length: RunLength | None = None,
        classes: Mapping[str, int] | None = None,
    ) -> None:
        """Build networks and optimizers; schedules are those of a run of this `length`.

        `classes` of a conditional GAN: their names, and how many images the data set has of each.
        """
        self.settings, self.image_size, self.device = settings, image_size, device
        self.precision = resolve(training.precision, device)
        published = recipe(settings)
        self.loss = LOSSES[settings.loss or published.loss]
        chosen = training.model_dump(include={*vars(published.optimizer)}, exclude_none=True)
        self.optimizer = replace(published.optimizer, **chosen)
        self.classes = dict(classes or {})
        generator, discriminator = build(settings, image_size, seed, len(self.classes))
        self.trained = generator.to(device).to(memory_format=torch.channels_last)
        self.discriminator = discriminator.to(device).to(memory_format=torch.channels_last)
        self._averaged = published.burn_in if settings.ema is None else settings.ema > 0
        self.generator = copy.deepcopy(self.trained).eval() if self._averaged else self.trained
        """The generator to measure and save: the running average, or the trained one itself."""
        self._length = length or RunLength()
        self._top_k = torch.zeros((), dtype=torch.int64, device=device)
        self._burn_in: BurnIn | None = None
        if published.burn_in:
            self._burn_in = BurnIn(self.optimizer, settings.r1, self._length.steps, device)
        adam = partial(ScheduledAdam, self._burn_in) if self._burn_in else torch.optim.Adam
        self._adam_g, self._adam_d = (
            adam(
                network.parameters(),
                self.optimizer.learning_rate,
                (self.optimizer.beta1, self.optimizer.beta2),
                fused=True,
                capturable=device.type == "cuda",
            )
            for network in (self.trained, self.discriminator)
        )
        # A step of user-defined networks may differ from call to call, so it is not captured.
        # All graphs share a stream: cuBLAS keeps a workspace for each stream that it has seen.
        capturable = device.type == "cuda" and settings.network in NETWORKS
        self._stream = torch.cuda.Stream() if capturable else None
        self._graphs: dict[bool, CudaGraph] = {}
        """The captured step without and with the update of G."""
        self.steps = 0
        """Steps of the whole run; not part of the model, so a rewind does not change it."""

    def step(
        self,
        real: Tensor,
        random: torch.Generator,
        weights: Tensor | None = None,
        classes: Tensor | None = None,
    ) -> Tensor:
        """Train on one batch and return a tally [4], which the next step may overwrite.

        Updates D on `real` [n, 3, S, S] and as many generated images, and in every `d_steps`-th
        step G. `weights` [n] of mean 1 multiply the real images' terms of D's loss. Generated
        images have the `classes` [n, classes] of the real ones. The tally holds the losses of D
        (with penalties) and G, and the means of sigmoid(D) on real and on generated images. On a
        GPU the batch size must not change, nor may `random` be another generator.
        """
        if self._burn_in:
            self._burn_in.follow(self.steps)
        if self.settings.top_k < 1:
            epochs = self.steps // self._length.epoch
            self._top_k.fill_(top_k(self.settings.top_k, epochs, len(real)))
        self.steps += 1
        update_g = self.steps % self.optimizer.d_steps == 0
        if classes is None:
            classes = real.new_empty((len(real), 0))
        inputs = (real, classes) if weights is None else (real, classes, weights)
        update = partial(self._update, update_g)
        if self._stream is None:
            tally = update(random, *inputs)
        else:
            if update_g not in self._graphs:
                self._graphs[update_g] = CudaGraph(self._stream)
            tally = self._graphs[update_g](update, random, *inputs)
        if update_g and self._averaged:
            self._update_average()
        return tally

    def _update(
        self,
        update_g: bool,
        random: torch.Generator,
        real: Tensor,
        classes: Tensor,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Update D and, if `update_g`, then G on the same generated images; return the tally."""
        count, kinds = len(real), self.settings.augment
        discriminator: Callable[..., Tensor] = self.discriminator
        if self.settings.conditional:
            discriminator = partial(self.discriminator, classes=classes)

        # Generate images. Their graph is only needed to update G.
        latent = torch.randn((count, self.settings.latent), generator=random, device=self.device)
        with torch.set_grad_enabled(update_g), self._autocast():
            fake = self.trained(torch.cat((latent, classes), dim=1))

        # D's loss on augmented real and generated images.
        real, seen = augment(real, kinds, random), augment(fake.detach(), kinds, random)
        with self._autocast():
            on_real, on_fake = discriminator(real, seen).float().chunk(2)
        if self.loss.paired:
            on_real, on_fake = on_real - on_fake, on_fake - on_real
        losses_real = self.loss.real(on_real)
        if weights is not None:
            losses_real = losses_real * weights
        loss_d = losses_real.mean() + self.loss.fake(on_fake).mean()

        # Penalties on D's gradient, without autocast: in fp32, or TF32 next to bf16 on a GPU.
        if self.loss.gradient_penalty:
            shares = torch.rand(count, generator=random, device=self.device)
            penalty = gradient_penalty(discriminator, real, seen.float(), shares)
            loss_d = loss_d + self.loss.gradient_penalty * penalty
        if self._burn_in:  # R1 and R2, from one pass
            penalty = 2 * zero_centred_penalty(discriminator, torch.cat((real, seen.float())))
            loss_d = loss_d + self._burn_in.gamma * penalty
        elif self.settings.r1:
            loss_d = loss_d + self.settings.r1 * zero_centred_penalty(discriminator, real)

        # Update D.
        self._adam_d.zero_grad()
        loss_d.backward()
        self._adam_d.step()

        # Update G by the new D, on augmentations drawn again.
        if update_g:
            self.discriminator.requires_grad_(False)  # saves D's weight gradients
            seen = augment(fake, kinds, random)
            with self._autocast():
                if self.loss.paired:
                    other, logits = discriminator(real, seen).float().chunk(2)
                    losses_g = self.loss.generator(logits - other)
                else:
                    logits = discriminator(seen).float()
                    losses_g = self.loss.generator(logits)
            few = self.settings.top_k < 1
            loss_g = top_k_mean(losses_g, logits, self._top_k) if few else losses_g.mean()
            self._adam_g.zero_grad()
            loss_g.backward()
            self._adam_g.step()
            self.discriminator.requires_grad_(True)
        else:
            loss_g = self.loss.generator(on_fake).mean()

        means = on_real.sigmoid().mean(), on_fake.sigmoid().mean()
        return torch.stack((loss_d, loss_g, *means)).detach()

    def _update_average(self) -> None:
        """Move the running average towards the trained generator; copy its batch statistics.

        A given decay rises from 2/11 to `ema`, as in TensorFlow's ExponentialMovingAverage:
        otherwise the initial weights, which are noise, would remain in the average for long.
        """
        updates = self.steps // self.optimizer.d_steps
        if self._burn_in and not self.settings.ema:
            decay = self._burn_in.decay**self.optimizer.d_steps
        else:
            decay = min(self.settings.ema or 0.0, (1 + updates) / (10 + updates))
        with torch.no_grad():
            pair = [[*network.parameters()] for network in (self.generator, self.trained)]
            get_ema_multi_avg_fn(decay)(*pair, None)
            pairs = zip(self.generator.buffers(), self.trained.buffers(), strict=True)
            for average, value in pairs:
                average.copy_(value)

    @torch.inference_mode()
    def images(self, latent: Tensor) -> Tensor:
        """Return float32 images [n, 3, S, S] in [-1, 1] in eval mode.

        They are made from noise [n, latent] or noise and classes (`featgan.gans.classes.draw`).
        """
        self.generator.eval()
        with self._autocast():
            images = self.generator(latent)
        self.trained.train()
        return images.float()

    @torch.inference_mode()
    def rate(self, real: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return D's logits [n] for images [n, 3, S, S] of `classes` in eval mode, float32.

        Each depends on its own image alone; D does not change.
        """
        more = {} if classes is None else {"classes": classes}
        self.discriminator.eval()
        with self._autocast():
            logits: Tensor = self.discriminator(real, **more)
        self.discriminator.train()
        return logits.float()

    def generate(self, latent: Tensor) -> Tensor:
        """Return `images` as they would be saved: uint8 [n, 3, S, S]."""
        return to_uint8(self.images(latent))

    def generator_file(self) -> bytes:
        """Return the bytes of the generator's file."""
        return generator_bytes(self.generator, self.settings, self.image_size, self.classes)

    def is_finite(self) -> bool:
        """Return whether all values of networks and optimizers are finite; synchronizes once.

        An infinite Adam moment would freeze its parameter.
        """
        networks = (self.trained, self.discriminator, self.generator)
        values = [value for network in networks for value in network.state_dict().values()]
        moments = [*self._adam_g.state.values(), *self._adam_d.state.values()]
        values += [value.to(self.device) for each in moments for value in each.values()]
        return bool(torch.stack([value.isfinite().all() for value in values]).all())

    def state(self) -> dict[str, Any]:
        """Return a copy of the state of networks and optimizers."""
        return copy.deepcopy({name: part.state_dict() for name, part in self._parts().items()})

    def load_state(self, state: dict[str, Any]) -> None:
        """Load what `state` returned."""
        for name, part in self._parts().items():
            part.load_state_dict(copy.deepcopy(state[name]))
        for adam in (self._adam_g, self._adam_d):  # a state from a CPU has capturable=False
            for group in adam.param_groups:
                group["capturable"] = self.device.type == "cuda"
        if self._graphs:  # Adam's moments have other addresses now
            self._graphs.clear()
            torch.cuda.empty_cache()

    def _parts(self) -> dict[str, Any]:
        parts = {
            "generator": self.trained,
            "discriminator": self.discriminator,
            "adam_g": self._adam_g,
            "adam_d": self._adam_d,
        }
        return parts | {"average": self.generator} if self._averaged else parts

    def _autocast(self) -> torch.autocast:
        enabled = self.precision != torch.float32
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)
