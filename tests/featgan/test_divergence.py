"""A run whose numbers are no longer finite ends with its peak, and says why."""

import math

import pytest
import torch

from featgan import checkpoint


def poison(trainer, network="generator"):
    with torch.no_grad():
        next(getattr(trainer.gan, network).parameters()).fill_(math.nan)


@pytest.mark.parametrize("network", ["generator", "trained", "discriminator"])
def test_an_update_that_leaves_nan_ends_the_run_diverged(make_trainer, monkeypatch, same, network):
    """The last one before an evaluation: the losses are of before it, and still finite."""
    trainer = make_trainer("conventional", gan={"ema": 0.9})
    run, train = trainer.run(), trainer.train
    first = next(run)
    kept = trainer.state()["models"][0]
    monkeypatch.setattr(trainer, "train", lambda epochs: (train(epochs), poison(trainer, network)))
    assert list(run) == []
    assert trainer.diverged == "stage 1, epoch 2: weights or optimizer moments are not finite"
    assert trainer.progress.final_score == first.score
    assert len(trainer.evaluations) == 1
    assert same(trainer.state()["model"], kept)


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_a_run_whose_weights_are_nan_ends_diverged(make_trainer, same, network):
    trainer = make_trainer("conventional")
    run = trainer.run()
    first = next(run)
    kept = trainer.state()["models"][0]
    poison(trainer, network)
    assert list(run) == []
    assert "not finite" in trainer.diverged
    assert "epoch 2" in trainer.diverged
    assert trainer.progress.final_score == first.score
    assert same(trainer.state()["model"], kept)


def test_a_stage_that_diverges_at_once_leaves_the_peak_before(make_trainer, same):
    trainer = make_trainer("ascending", stage_epochs=1)
    run = trainer.run()
    first = next(run)
    kept = trainer.state()["model"]
    poison(trainer)
    assert list(run) == []
    assert "stage 2" in trainer.diverged
    assert trainer.progress.final_score == first.score
    assert same(trainer.state()["model"], kept)


def test_a_run_that_diverges_at_once_has_no_score(make_trainer):
    trainer = make_trainer()
    poison(trainer)
    assert list(trainer.run()) == []
    assert trainer.progress.final_score is None


def test_a_run_whose_watched_value_is_always_nan_ends_diverged(make_trainer, monkeypatch):
    options = {"mode": "conventional", "staging": {"watch": "fid"}, "metrics": ["fid"]}
    trainer, again = make_trainer(**options), make_trainer(**options)
    monkeypatch.setattr(trainer, "_watched", lambda evaluation: math.nan)
    evaluations = len(list(trainer.run()))
    assert trainer.progress.finished
    assert len(trainer.evaluations) == evaluations > 1
    assert trainer.diverged == "stages.watch: fid was NaN or infinite in every evaluation"
    again.restore(trainer.state() | {"diverged": None})  # of a checkpoint at the last evaluation
    assert list(again.run()) == []
    assert again.diverged == trainer.diverged


def test_a_diverged_run_stays_diverged_when_restored(make_trainer):
    trainer = make_trainer()
    poison(trainer)
    list(trainer.run())
    restored = make_trainer()
    restored.restore(checkpoint.load(checkpoint.dump(trainer.state())))
    assert list(restored.run()) == []
    assert restored.diverged == trainer.diverged
