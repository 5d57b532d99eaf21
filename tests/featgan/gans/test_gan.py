"""The adversarial step on its own: what it minimises, and when; what it leaves alone."""

import pytest
import torch
from torch.nn.functional import relu, softplus

from featgan.gans.gan import Gan
from featgan.gans.losses import gradient_penalty
from featgan.gans.schedules import RunLength
from featgan.gans.settings import GanSettings, Optimizer
from featgan.settings import TrainingSettings


@pytest.fixture
def make_gan(one_thread):
    def make(seed=0, training=None, length=None, classes=None, **settings):
        settings = GanSettings(**{"width": 2, "latent": 4} | settings)
        training = TrainingSettings(**{"precision": "fp32"} | (training or {}))
        return Gan(
            settings, training, 32, seed, torch.device("cpu"), length=length, classes=classes
        )

    return make


def noise():
    return torch.Generator().manual_seed(7)


def real_images(count=6):
    return torch.rand((count, 3, 32, 32), generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_an_infinite_moment_of_adams_is_not_finite(make_gan):
    """Its parameter would stand still for the rest of the run."""
    gan = make_gan()
    gan.step(real_images(), noise())
    assert gan.is_finite()
    next(iter(gan._adam_d.state.values()))["exp_avg_sq"][0] = torch.inf
    assert not gan.is_finite()


def test_weights_multiply_each_real_images_loss(make_gan):
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


def weights_of(network):
    return torch.cat([value.detach().flatten() for value in network.parameters()])


@pytest.mark.parametrize(
    ("network", "published"),
    [
        ("dcgan", Optimizer(2e-4, 0.5, 0.999, 1)),
        ("sngan", Optimizer(2e-4, 0.0, 0.9, 5)),
        ("wgan-gp", Optimizer(2e-4, 0.0, 0.9, 5)),
        ("r3gan", Optimizer(2e-4, 0.0, 0.9, 1)),
    ],
)
def test_what_the_settings_leave_open_is_as_published(make_gan, network, published):
    assert make_gan(network=network, width=16).optimizer == published
    chosen = {"learning_rate": 1e-3, "beta1": 0.0, "beta2": 0.5, "d_steps": 2}
    gan = make_gan(network=network, width=16, training=chosen)
    assert gan.optimizer == Optimizer(1e-3, 0.0, 0.5, 2)


def test_the_generator_moves_at_every_d_steps_th_step(make_gan):
    gan = make_gan(training={"d_steps": 3})
    gan.steps = 4  # as of a run continued there
    moved = []
    for _ in range(6):
        before = weights_of(gan.trained)
        gan.step(real_images(), noise())
        moved.append(not torch.equal(weights_of(gan.trained), before))
    assert moved == [False, True, False, False, True, False]


def test_between_its_turns_g_has_the_loss_of_ds_images(make_gan):
    gan, reference = make_gan(training={"d_steps": 2}), make_gan()
    latent = torch.randn((6, 4), generator=noise())
    fake = reference.trained(latent).detach()
    _, on_fake = reference.discriminator(real_images(), fake).chunk(2)
    expected = -on_fake.sigmoid().log().mean()
    assert gan.step(real_images(), noise())[1].item() == pytest.approx(expected.item(), rel=1e-5)


def test_sngan_minimises_the_hinge_loss(make_gan):
    gan, reference = make_gan(network="sngan"), make_gan(network="sngan")
    fake = reference.trained(torch.randn((6, 4), generator=noise())).detach()
    on_real, on_fake = reference.discriminator(real_images(), fake).chunk(2)
    expected = relu(1 - on_real).mean() + relu(1 + on_fake).mean()
    tally = gan.step(real_images(), noise())
    assert tally[0].item() == pytest.approx(expected.item(), rel=1e-5)
    assert tally[1].item() == pytest.approx(-on_fake.mean().item(), rel=1e-5)


def test_wgan_gp_adds_ten_times_the_gradient_penalty(make_gan):
    gan, reference = make_gan(network="wgan-gp"), make_gan(network="wgan-gp")
    random = noise()
    fake = reference.trained(torch.randn((6, 4), generator=random)).detach()
    critic = reference.discriminator
    penalty = gradient_penalty(critic, real_images(), fake, torch.rand(6, generator=random))
    expected = critic(fake).mean() - critic(real_images()).mean() + 10 * penalty
    assert penalty > 0.01
    tally = gan.step(real_images(), noise())
    assert tally[0].item() == pytest.approx(expected.item(), rel=1e-4)


def test_r3gan_compares_pairs_and_penalises_both_gradients(make_gan):
    options = {"network": "r3gan", "width": 16, "r1": 6.0}
    gan, reference = make_gan(**options), make_gan(**options)
    fake = reference.trained(torch.randn((6, 4), generator=noise())).detach()
    real, fake = real_images().requires_grad_(), fake.requires_grad_()
    on_real, on_fake = (reference.discriminator(images) for images in (real, fake))
    slopes = torch.autograd.grad(on_real.sum() + on_fake.sum(), (real, fake))
    penalties = [slope.square().sum(dim=(1, 2, 3)).mean() for slope in slopes]
    expected = softplus(on_fake - on_real).mean() + 6.0 / 2 * sum(penalties)
    tally = gan.step(real_images(), noise())
    assert min(penalties) > 1e-4
    assert tally[0].item() == pytest.approx(expected.item(), rel=1e-5)
    assert tally[2].item() == pytest.approx((on_real - on_fake).sigmoid().mean().item())
    on_real, on_fake = (gan.discriminator(images) for images in (real, fake))  # the new D
    assert tally[1].item() == pytest.approx(softplus(on_real - on_fake).mean().item(), rel=1e-5)


def test_r3gans_average_has_a_half_life(make_gan):
    gan = make_gan(network="r3gan", width=16, r1=1.0, length=RunLength(40))
    gan.step(real_images(), noise())
    assert torch.equal(weights_of(gan.generator), weights_of(gan.trained))  # a half-life of 0
    gan.steps = 20
    before = weights_of(gan.generator)
    gan.step(real_images(), noise())
    after = weights_of(gan.trained)  # 2.5% of 40 steps, times 1/2: a half-life of half a step
    torch.testing.assert_close(weights_of(gan.generator), after + (before - after) / 4)
    assert make_gan(network="r3gan", width=16, r1=1.0, ema=0.0).generator.training


@pytest.mark.parametrize("network", ["sngan", "r3gan"])
def test_a_pair_of_images_has_one_class(make_gan, network):
    """Generated images have the classes of the real ones, and D sees both with them."""
    options = {"network": network, "conditional": True, "width": 16, "classes": {"a": 1, "b": 2}}
    gan, reference = (make_gan(r1=3.0, training={"d_steps": 1}, **options) for _ in range(2))
    classes = torch.eye(2)[[0, 1, 1, 0, 1, 0]]
    latent = torch.randn((6, 4), generator=noise())
    fake = reference.trained(torch.cat((latent, classes), dim=1)).detach()
    real = real_images().requires_grad_()
    both = reference.discriminator(real, fake, classes=classes)
    on_real, on_fake = both.chunk(2)
    if network == "sngan":
        expected = relu(1 - on_real).mean() + relu(1 + on_fake).mean()
        (slope,) = torch.autograd.grad(reference.discriminator(real, classes=classes).sum(), real)
        expected = expected + 3.0 / 2 * slope.square().sum(dim=(1, 2, 3)).mean()
    else:
        fake.requires_grad_()
        both = reference.discriminator(real, fake, classes=classes)
        slopes = torch.autograd.grad(both.sum(), (real, fake))
        expected = softplus(on_fake - on_real).mean()
        expected = expected + 3.0 / 2 * sum(s.square().sum() / 6 for s in slopes)
    tally = gan.step(real_images(), noise(), classes=classes)
    assert tally[0].item() == pytest.approx(expected.item(), rel=1e-4)
    assert tally[1].item() != 0


def test_r1_adds_half_gamma_times_the_squared_gradient(make_gan):
    plain, penalised = make_gan(network="sngan"), make_gan(network="sngan", r1=6.0)
    reference = make_gan(network="sngan")
    loss = plain.step(real_images(), noise())[0]
    real = real_images().requires_grad_()
    reference.discriminator(real, real)  # the step's first pass moves spectral norm's vectors
    (slope,) = torch.autograd.grad(reference.discriminator(real).sum(), real)
    expected = loss + 6.0 / 2 * slope.square().sum(dim=(1, 2, 3)).mean()
    assert penalised.step(real_images(), noise())[0].item() == pytest.approx(expected.item(), 1e-4)


def test_a_loss_can_be_chosen_for_any_network(make_gan):
    assert make_gan(network="sngan", loss="wasserstein").loss.gradient_penalty == 10
    assert make_gan(network="wgan-gp", loss="hinge").loss.gradient_penalty == 0


def test_the_average_follows_the_generator_by_its_decay(make_gan):
    gan = make_gan(ema=0.15, training={"learning_rate": 0.1})
    expected = weights_of(gan.trained)
    for decay in (2 / 11, 3 / 12, 4 / 13):
        gan.step(real_images(), noise())
        share = 1 - min(0.15, decay)
        expected = expected + share * (weights_of(gan.trained) - expected)
        torch.testing.assert_close(weights_of(gan.generator), expected)
    slow = make_gan(ema=0.999)
    expected = weights_of(slow.trained)
    slow.step(real_images(), noise())
    expected += (1 - 2 / 11) * (weights_of(slow.trained) - expected)  # the warm-up's decay
    torch.testing.assert_close(weights_of(slow.generator), expected)


def test_images_are_the_averages_and_training_ignores_them(make_gan):
    training = {"learning_rate": 0.02}
    plain, averaged = (make_gan(width=8, training=training, ema=ema) for ema in (0.0, 0.9))
    for gan in (plain, averaged):
        gan.step(real_images(), noise())
        latent = torch.randn((3, 4), generator=noise())
        images = gan.images(latent)
        gan.step(real_images(), noise())
    assert torch.equal(weights_of(plain.trained), weights_of(averaged.trained))
    assert not torch.equal(averaged.images(latent), images)
    assert torch.equal(averaged.images(latent), averaged.generator.eval()(latent))
    statistics = [dict(net.named_buffers()) for net in (averaged.trained, averaged.generator)]
    for name, value in statistics[0].items():
        assert torch.equal(value, statistics[1][name]), name


@pytest.mark.parametrize("network", ["dcgan", "r3gan"])
def test_g_learns_from_the_images_that_d_rates_highest(make_gan, network):
    """At step 140 of epochs of two steps: 0.99^70 < 1/2, so 3 images of 6."""
    options = {"network": network, "width": 16, "r1": 1.0}
    gan = make_gan(top_k=0.5, length=RunLength(1, 2), **options)
    reference = make_gan(length=RunLength(1, 2), **options)
    for each in (gan, reference):
        each.steps = 140
    latent = torch.randn((6, 4), generator=noise())
    fake = gan.trained(latent)
    before = weights_of(gan.trained)
    tallies = [each.step(real_images(), noise()) for each in (gan, reference)]
    assert torch.equal(weights_of(gan.discriminator), weights_of(reference.discriminator))
    logits = gan.discriminator(fake.detach())
    best = logits.argsort(descending=True)[:3]
    losses = gan.loss.generator(
        logits - gan.discriminator(real_images()) if gan.loss.paired else logits
    )
    assert tallies[0][1].item() == pytest.approx(losses[best].mean().item(), rel=1e-5)
    assert tallies[0][1] != tallies[1][1]
    assert not torch.equal(weights_of(gan.trained), before)


@pytest.mark.parametrize("kind", ["color", "translation", "cutout"])
def test_neither_network_is_shown_an_unchanged_image(make_gan, monkeypatch, kind):
    gan, seen = make_gan(augment=[kind]), []
    forward = gan.discriminator.forward
    monkeypatch.setattr(
        gan.discriminator, "forward", lambda *batches: seen.extend(batches) or forward(*batches)
    )
    fake = make_gan().trained(torch.randn((6, 4), generator=noise())).detach()
    before = weights_of(gan.trained)
    gan.step(real_images(), noise())
    for batch, unchanged in zip(seen, [real_images(), fake, fake], strict=True):
        assert not torch.equal(batch, unchanged)
    assert not torch.equal(seen[1], seen[2])  # drawn again to update G
    assert not torch.equal(weights_of(gan.trained), before)  # its gradient came through


@pytest.mark.parametrize("network", ["dcgan", "sngan", "wgan-gp", "r3gan"])
def test_to_rate_images_changes_nothing_and_each_counts_alone(make_gan, network):
    settings = {"network": network, "width": 16, "r1": 1.0}
    plain, rated = make_gan(**settings), make_gan(**settings)
    for gan in (plain, rated):
        gan.step(real_images(), noise())
    torch.manual_seed(0)
    before = torch.get_rng_state()
    logits = rated.rate(real_images())
    alone = torch.cat([rated.rate(image[None]) for image in real_images()])
    assert torch.allclose(logits, alone, rtol=1e-4, atol=1e-5)
    assert len(logits.unique()) == 6
    assert torch.equal(torch.get_rng_state(), before)
    for gan in (plain, rated):
        gan.step(real_images(), noise())
    for name, value in plain.state()["discriminator"].items():
        assert torch.equal(value, rated.state()["discriminator"][name]), name


def test_images_are_rated_as_those_of_their_classes(make_gan):
    gan = make_gan(network="sngan", conditional=True, classes={"a": 3, "b": 3})
    gan.discriminator.eval()
    one, other = torch.eye(2)[[0] * 6], torch.eye(2)[[1] * 6]
    expected = gan.discriminator(real_images(), classes=other)
    assert torch.equal(gan.rate(real_images(), other), expected)
    assert not torch.equal(gan.rate(real_images(), one), expected)
