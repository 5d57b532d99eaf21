"""The adversarial step on its own: what is weighted, counted, and left alone."""

import pytest
import torch

from featgan.gan import Gan
from featgan.networks import GanSettings
from featgan.trainer import TrainingSettings


@pytest.fixture
def make_gan():
    def make(seed=0, training=None, **settings):
        settings = GanSettings(**{"width": 2, "latent": 4} | settings)
        training = TrainingSettings(**{"precision": "fp32"} | (training or {}))
        return Gan(settings, training, 32, seed, torch.device("cpu"))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield make
    torch.set_num_threads(threads)


def noise():
    return torch.Generator().manual_seed(7)


def real_images(count=6):
    return torch.rand((count, 3, 32, 32), generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_weights_multiply_each_real_images_part_of_the_discriminators_loss(make_gan):
    weights = torch.tensor([2.0, 0.0, 1.0, 0.5, 1.5, 1.0])
    gan, reference = make_gan(), make_gan()
    latent = torch.randn((6, 4), generator=noise())
    on_real, on_fake = reference.discriminator(
        real_images(), reference.generator(latent).detach()
    ).chunk(2)
    loss = -(weights * on_real.sigmoid().log()).mean() - (1 - on_fake.sigmoid()).log().mean()
    tally = gan.step(real_images(), noise(), weights)
    assert tally[0].item() == pytest.approx(loss.item(), rel=1e-5)


def test_weights_of_one_change_nothing(make_gan):
    plain, weighted = make_gan(), make_gan()
    plain.step(real_images(), noise())
    weighted.step(real_images(), noise(), torch.ones(6))
    for name, value in plain.state()["discriminator"].items():
        assert torch.equal(value, weighted.state()["discriminator"][name]), name


def test_steps_are_counted_through_a_rewind(make_gan):
    gan = make_gan()
    before = gan.state()
    gan.step(real_images(), noise())
    gan.load_state(before)
    gan.step(real_images(), noise())
    assert gan.steps == 2


def test_looking_at_images_leaves_the_model_alone(make_gan):
    gan = make_gan()
    before = gan.state()
    latent = torch.randn((3, 4), generator=noise())
    images = gan.images(latent)
    assert (images.shape, images.dtype) == ((3, 3, 32, 32), torch.float32)
    expected = images.add(1).mul(127.5).round()
    assert torch.equal(gan.generate(latent).float(), expected)
    for name, value in gan.state()["generator"].items():  # batch statistics too
        assert torch.equal(value, before["generator"][name]), name
    assert gan.generator.training
