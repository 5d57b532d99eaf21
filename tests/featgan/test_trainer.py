"""The trainer: the method, exact continuation, and scores that do not affect the training."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from featgan import checkpoint
from featgan.scores.score import Measurement
from featgan.settings import TrainingSettings
from featgan.staging.progress import Peak


@pytest.mark.parametrize("mode", ["ascending", "conventional"])
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_stopped_at_every_evaluation_ends_the_same(
    make_trainer, mode, size, precision, same, outcome
):
    options = {
        "mode": mode,
        "size": size,
        "precision": precision,
        "stage_epochs": 2,
        "horizontal_flip": True,
        "count": 12,
    }
    straight = make_trainer(**options)
    evaluations = len(list(straight.run()))
    stopped, rounds = make_trainer(**options), 0
    while not stopped.progress.finished:
        next(stopped.run())
        saved = checkpoint.dump(stopped.state())
        torch.manual_seed(rounds)  # global generators must not matter
        stopped = make_trainer(**options)
        stopped.restore(checkpoint.load(saved))
        rounds += 1
    assert rounds == evaluations == 6
    assert same(outcome(stopped), outcome(straight))
    assert stopped.gan.generator_file() == straight.gan.generator_file()


@pytest.mark.parametrize("peak", [1, 5])
def test_the_generator_of_the_last_evaluation_is_kept_before_the_rewind(make_trainer, peak):
    trainer = make_trainer(mode="conventional", stage_epochs=2)
    evaluate, files = trainer.evaluate, []

    def watched():
        files.append(trainer.gan.generator_file())
        return replace(evaluate(), score=2.0 if len(files) == peak + 1 else 1.0)

    trainer.evaluate = watched
    list(trainer.run())
    assert len({*files}) == 6
    assert trainer.gan.generator_file() == files[peak]
    assert trainer.last_generator == files[-1]


GANS = {
    "sngan": {"network": "sngan"},
    "wgan-gp": {"network": "wgan-gp"},
    "ema": {"ema": 0.9},
    "r1": {"r1": 1.0},
    "augment": {"augment": ["color", "translation", "cutout"]},
    "r3gan": {"network": "r3gan", "width": 16, "r1": 1.0, "top_k": 0.5},
    "top_k": {"top_k": 0.5},
    "conditional sngan": {"network": "sngan", "conditional": True},
    "conditional r3gan": {"network": "r3gan", "conditional": True, "width": 16, "r1": 1.0},
    "all": {"network": "sngan", "ema": 0.9, "r1": 1.0, "augment": ["translation"]},
}


@pytest.mark.parametrize("gan", GANS.values(), ids=GANS)
def test_every_kind_of_gan_continues_with_the_same_bytes(make_trainer, same, outcome, gan):
    """Also between updates of G: with 12 images an epoch is 2 steps, and G moves every 5th."""
    options = {"gan": gan, "stage_epochs": 2, "count": 12, "learning_rate": 1e-3}
    straight, stopped = make_trainer(**options), make_trainer(**options)
    start = straight.gan.generator_file()
    list(straight.run())
    while not stopped.progress.finished:
        next(stopped.run())
        saved = checkpoint.dump(stopped.state())
        torch.manual_seed(1)
        stopped = make_trainer(**options)
        stopped.restore(checkpoint.load(saved))
    assert same(outcome(stopped), outcome(straight))
    assert stopped.gan.generator_file() == straight.gan.generator_file()
    assert stopped.gan.generator_file() != start


def test_a_conditional_gan_is_measured_with_the_data_sets_classes(make_trainer):
    gan = {"network": "sngan", "conditional": True}
    trainer = make_trainer(gan=gan, count=20, score_count=600)
    assert trainer.gan.classes == {"round": 10, "square": 10}
    assert trainer._noise[:, 4].mean().item() == pytest.approx(0.5, abs=0.08)
    seen, step = [], trainer.gan.step
    trainer.gan.step = lambda *given: seen.append(given[3].argmax(1)) or step(*given)
    rows = [rows for _, rows in trainer.batches.epoch(trainer.progress.stage, 0)]
    trainer.train(1)
    assert [batch.tolist() for batch in seen] == [(batch % 2).tolist() for batch in rows]
    plain = make_trainer(count=20, score_count=600)
    assert torch.equal(trainer._noise[:, :4], plain._noise)
    grid = trainer.samples(9)
    inputs = trainer._noise[:9].clone()
    inputs[:, 4:] = torch.eye(2)[[0, 0, 0, 1, 1, 1, 0, 0, 0]]
    assert torch.equal(grid, trainer.gan.generate(inputs))


def test_classes_are_as_frequent_as_in_the_images_trained_on(make_trainer):
    trainer = make_trainer(gan={"network": "sngan", "conditional": True}, count=20, left_out=5)
    assert trainer.gan.classes == {"round": 7, "square": 8}


def test_top_k_is_annealed_by_passes_over_the_data(make_trainer):
    trainer = make_trainer(gan={"top_k": 0.5}, count=20, epoch_steps=1)
    assert trainer.gan._length.epoch == 3  # batches of 8


BEYOND = [
    {"staging": {"criterion": "smoothed_peak", "window": 3}},
    {"staging": {"criterion": "patience", "patience": 1}},
    {"staging": {"criterion": "plateau", "window": 1}},
    {"staging": {"criterion": "fixed", "change": "replace"}},
    {"staging": {"rewind": False, "watch": "fid"}, "metrics": ["fid"]},
    {"staging": {"rank": "discriminator_output"}},
    {"staging": {"rank": "discriminator_loss", "rewind": False}, "mode": "descending"},
    {"staging": {"rank": "discriminator_output", "change": "replace"}, "mode": "descending"},
    {
        "staging": {"rank": "discriminator_loss", "change": "replace"},
        "gan": {"network": "sngan", "conditional": True},
    },
    {"pacing": {"by": "sampling"}, "mode": "conventional"},
    {"pacing": {"by": "loss", "first": "high"}, "mode": "conventional"},
    {"pacing": {"grow": "linear", "order": "random"}, "mode": "conventional", "epoch_steps": 1},
]


@pytest.mark.parametrize("options", BEYOND, ids=str)
def test_a_stopped_run_beyond_the_paper_ends_the_same(make_trainer, options, same, outcome):
    straight = make_trainer(**options)
    evaluations = len(list(straight.run()))
    assert evaluations > 3
    stopped = make_trainer(**options)
    while not stopped.progress.finished:
        next(stopped.run())
        saved = checkpoint.dump(stopped.state())
        stopped = make_trainer(**options)
        stopped.restore(checkpoint.load(saved))
    assert same(outcome(stopped), outcome(straight))
    assert stopped.gan.generator_file() == straight.gan.generator_file()


@pytest.fixture
def scripted(make_trainer, monkeypatch):
    """A trainer whose scores are given, and the model as it was at each of its evaluations."""

    def script(scores, **options):
        trainer, models = make_trainer(**options), []
        left = iter(scores)

        def measure(generate):
            models.append(trainer.gan.state())
            score = next(left)
            return Measurement(score, 0.0, {"fid": score})

        monkeypatch.setattr(trainer.score, "evaluate", measure)
        return trainer, models

    return script


def test_a_smoothed_peak_rewinds_to_the_best_windows_middle(scripted, same):
    trainer, models = scripted(
        [1.0, 6.0, 1.0, 5.0, 5.0, 5.0],
        mode="conventional",
        stage_epochs=2,
        staging={"criterion": "smoothed_peak", "window": 3},
    )
    list(trainer.run())
    assert trainer.progress.peaks == [Peak(5, 5.0)]
    assert same(trainer.state()["model"], models[4])


def test_a_watched_distance_is_best_when_lowest(scripted, same):
    trainer, models = scripted(
        [5.0, 2.0, 3.0], mode="conventional", stage_epochs=1, staging={"watch": "fid"}
    )
    list(trainer.run())
    assert trainer.progress.peaks == [Peak(2, 2.0)]
    assert trainer.progress.best_score == 5.0
    assert same(trainer.state()["model"], models[1])


def test_without_rewind_the_run_still_ends_at_its_peak(scripted, same):
    trainer, models = scripted(
        [3.0, 1.0, 2.0, 1.0, 4.0, 1.0], mode="ascending", stage_epochs=2, staging={"rewind": False}
    )
    run = trainer.run()
    for _ in range(2):
        next(run)
    assert same(trainer.state()["model"], models[1])
    list(run)
    assert same(trainer.state()["model"], models[4])


def test_measuring_more_often_does_not_change_training(make_trainer, same):
    never, always = make_trainer("conventional"), make_trainer("conventional")
    never.train(6)
    for _ in range(6):
        always.train(1)
        always.evaluate()
    assert same(never.state()["model"], always.state()["model"])


def test_the_number_of_scored_images_does_not_change_training(make_trainer, same):
    few, many = make_trainer("conventional"), make_trainer("conventional", score_count=60)
    for trainer in (few, many):
        trainer.train(1)
        trainer.evaluate()
        trainer.train(1)
    assert same(few.state()["model"], many.state()["model"])


def test_the_next_stage_starts_from_the_peak(make_trainer, monkeypatch, same):
    trainer = make_trainer("ascending", stage_epochs=3)
    scores = iter([1.0, 3.0, 2.0, 5.0, 4.0, 3.0, 1.0, 1.0, 2.0])
    measure = lambda generate: Measurement(next(scores), 0.0, {})  # noqa: E731
    monkeypatch.setattr(trainer.score, "evaluate", measure)
    run, models = trainer.run(), []
    original = trainer.evaluate

    def evaluate():
        models.append(trainer.state()["model"])
        return original()

    monkeypatch.setattr(trainer, "evaluate", evaluate)
    for _ in range(3):
        next(run)
    assert trainer.progress.stage.number == 2
    assert same(trainer.state()["model"], models[1])
    assert not same(models[1], models[2])
    list(run)
    assert trainer.progress.peaks == [Peak(2, 3.0), Peak(1, 5.0), Peak(3, 2.0)]
    assert trainer.progress.epochs_to_peak == 6
    assert trainer.progress.epochs_spent == 9
    assert trainer.progress.final_score == 2.0
    assert trainer.progress.best_score == 5.0
    assert same(trainer.state()["model"], models[8])


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("bf16", True)])
def test_fp32_is_fp32_in_convolutions_on_a_gpu_too(make_trainer, monkeypatch, precision, tf32):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", not tf32)
    make_trainer(precision=precision).train(1)
    assert torch.backends.cudnn.allow_tf32 == tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_modes_of_one_seed_share_weights_and_noise(make_trainer, same):
    staged, conventional = make_trainer("descending", seed=4), make_trainer("conventional", seed=4)
    assert same(staged.state()["model"], conventional.state()["model"])
    assert torch.equal(staged.generate(0, 8), conventional.generate(0, 8))
    assert not same(staged.state()["model"], make_trainer(seed=5).state()["model"])


def test_after_a_rewind_the_batches_are_new(make_trainer, same):
    """Stage and epoch name the stream, so stage 2 cannot replay what stage 1 has undone."""
    trainer = make_trainer("ascending", stage_epochs=2)
    first = [images for images, _ in trainer.batches.epoch(trainer.progress.stages[1], 0)]
    again = [images for images, _ in trainer.batches.epoch(trainer.progress.stages[2], 0)]
    assert not same(first, again[: len(first)])


def test_a_step_follows_the_losses_of_the_gan(make_trainer):
    """D's and G's first losses, recomputed by hand from the initial networks."""
    trainer = make_trainer("conventional", count=8, batch_size=8)
    reference = make_trainer("conventional", count=8, batch_size=8)
    trainer.train(1)
    evaluation = trainer.evaluate()
    real, _ = next(reference.batches.epoch(reference.progress.stage, 0))
    from featgan.seeds import stream

    noise = torch.randn((8, 4), generator=stream(0, "noise", 1, 0))
    fake = reference.gan.generator(noise).detach()
    on_real = torch.sigmoid(reference.gan.discriminator(real))
    on_fake = torch.sigmoid(reference.gan.discriminator(fake))
    loss = -(on_real.log().mean() + (1 - on_fake).log().mean())
    assert evaluation.loss_d == pytest.approx(loss.item(), rel=1e-5)
    assert evaluation.d_real == pytest.approx(on_real.mean().item(), rel=1e-5)
    assert evaluation.d_fake == pytest.approx(on_fake.mean().item(), rel=1e-5)


def test_losses_are_means_since_the_evaluation_before(make_trainer):
    twice, once = make_trainer("conventional"), make_trainer("conventional")
    twice.train(1)
    first = twice.evaluate()
    twice.train(1)
    second = twice.evaluate()
    once.train(2)
    assert once.evaluate().loss_d == pytest.approx((first.loss_d + second.loss_d) / 2, rel=1e-6)
    assert (first.steps, second.steps) == (3, 6)


def test_a_network_with_dropout_continues_to_the_same_bytes(make_trainer, same):
    def with_dropout():
        trainer = make_trainer("conventional")
        trainer.gan.discriminator.layers.insert(1, torch.nn.Dropout(0.5))
        return trainer

    straight = with_dropout()
    straight.train(2)
    stopped = with_dropout()
    stopped.train(1)
    saved = stopped.state()
    torch.rand(7)  # another run in this process, say
    stopped = with_dropout()
    stopped.restore(saved)
    stopped.train(1)
    assert same(stopped.state()["model"], straight.state()["model"])


def test_a_generator_of_one_image_is_reported(make_trainer):
    trainer = make_trainer("conventional")
    trainer.train(1)
    assert trainer.evaluate().spread > 0.01
    with torch.no_grad():
        trainer.gan.generator.layers[-2].weight.fill_(0)
    assert trainer.evaluate().spread == 0


def test_every_image_needs_a_group(make_trainer):
    from featgan.batches import Batches

    with pytest.raises(ValueError, match="3 group numbers for 20 images"):
        Batches(
            make_trainer().batches.images,
            np.ones(3),
            TrainingSettings(batch_size=2),
            seed=0,
            device=torch.device("cpu"),
        )
