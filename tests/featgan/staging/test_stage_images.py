"""The images that each stage of a run trains on: replaced, growing, ranked and paced ones."""

import pytest
import torch

from featgan.scores.score import Measurement


def test_replaced_groups_are_not_met_again(make_trainer, monkeypatch):
    trainer = make_trainer("descending", stage_epochs=1, staging={"change": "replace"})
    step, met = trainer.gan.step, []

    def spy(real, *others):
        met.append(len(real))
        return step(real, *others)

    monkeypatch.setattr(trainer.gan, "step", spy)
    list(trainer.run())
    assert [len(trainer.batches.rows(stage)) for stage in trainer.progress.stages] == [6, 7, 7]
    assert len(met) == 3


@pytest.mark.parametrize(
    ("order", "first"), [("ascending", {0, 1, 2, 3, 4}), ("descending", {15, 16, 17, 18, 19})]
)
def test_growing_data_join_in_their_order(make_trainer, monkeypatch, order, first):
    trainer = make_trainer(
        "conventional",
        stage_epochs=4,
        epoch_steps=5,
        pacing={"grow": "linear", "a": 0.5, "b": 0.25, "order": order},
    )
    met, step = [], trainer.batches.epoch

    def spy(*args):
        batches = [*step(*args)]
        met.append({*torch.cat([rows for _, rows in batches]).tolist()})
        return iter(batches)

    monkeypatch.setattr(trainer.batches, "epoch", spy)
    seen = [evaluation.images_seen for evaluation in trainer.run()]
    sizes = [5, 7, 10, 12, 15, 17, *[20] * 6]  # 20 (0.25 + 0.75 t / 0.5), t = 0, 1/12, ...
    assert met[0] == first
    assert [len(rows) for rows in met] == seen == sizes
    assert [stage.images for stage in trainer.stage_records()] == [20]
    assert trainer.gan.steps == 12 * 5


@pytest.fixture
def ranked(make_trainer, monkeypatch):
    """Images by stage and counts of moved ones, where D gives image n of 9 the n-th value."""

    def trained(mode, values, **staging):
        trainer = make_trainer(mode, count=9, stage_epochs=1, staging=staging)
        trainer.batches._resident[:, 0, 0, 0] = torch.tensor(values, dtype=torch.uint8)
        monkeypatch.setattr(trainer.gan, "rate", lambda real, classes: real[:, 0, 0, 0] - 1)
        found = [trainer.batches.rows(trainer.progress.stage).tolist()]
        for _ in trainer.run():
            found.append(trainer.batches.rows(trainer.progress.stage).tolist())
        records = trainer.stage_records()
        assert [record.images for record in records] == [len(rows) for rows in found[:3]]
        return found[:3], [record.moved for record in records]

    return trained


VALUES = [10, 90, 20, 30, 80, 70, 40, 50, 60]
"""Of images in groups 1, 2, 3, 1, 2, 3, 1, 2, 3."""


def test_stages_take_the_unused_images_that_d_finds_next(ranked):
    everything = [*range(9)]
    up, moved = ranked("ascending", VALUES, rank="discriminator_output")
    assert up == [[0, 3, 6], [0, 2, 3, 6, 7, 8], everything]  # 20, 50, 60 of group 2 or 3
    assert moved == [None, 2, 0]
    down, moved = ranked("descending", VALUES, rank="discriminator_output")
    assert down == [[2, 5, 8], [1, 2, 4, 5, 7, 8], everything]  # 90, 80, 50
    assert moved == [None, 0, 0]
    loss, _ = ranked("ascending", VALUES, rank="discriminator_loss")  # lowest where D is sure
    assert loss[1] == [0, 1, 3, 4, 5, 6]  # 90, 80, 70
    fixed, moved = ranked("ascending", VALUES)
    assert fixed[1] == [0, 1, 3, 4, 6, 7]
    assert moved == [None, None, None]


def test_replacing_stages_take_what_d_finds_first_of_all(ranked):
    staging = {"rank": "discriminator_output", "change": "replace"}
    up, moved = ranked("ascending", VALUES, **staging)
    assert up == [[0, 3, 6], [0, 2, 3], [0, 2, 3]]
    assert moved == [None, 3, 2]
    down, moved = ranked("descending", VALUES, **staging)
    assert down == [[2, 5, 8], [1, 4, 5], [1, 4, 5]]
    assert moved == [None, 1, 3]


def test_images_are_ranked_by_the_model_at_the_peak(make_trainer, monkeypatch, same):
    trainer = make_trainer("ascending", stage_epochs=3, staging={"rank": "discriminator_output"})
    scores = iter([1.0, 3.0, 2.0])
    measure = lambda generate: Measurement(next(scores), 0.0, {})  # noqa: E731
    monkeypatch.setattr(trainer.score, "evaluate", measure)
    models, rate, evaluate = [], trainer.gan.rate, trainer.evaluate
    monkeypatch.setattr(
        trainer.gan, "rate", lambda *args: models.append(trainer.gan.state()) or rate(*args)
    )
    measured = []
    monkeypatch.setattr(
        trainer, "evaluate", lambda: measured.append(trainer.gan.state()) or evaluate()
    )
    run = trainer.run()
    for _ in range(3):
        next(run)
    assert len(models) == 2  # 13 images in batches of 8
    assert all(same(model, measured[1]) for model in models)


def test_two_ranked_runs_are_equal_and_unlike_a_fixed_one(make_trainer, same, outcome):
    staging = {"rank": "discriminator_output", "change": "replace"}
    first, again = make_trainer(staging=staging), make_trainer(staging=staging)
    for trainer in (first, again):
        list(trainer.run())
    assert same(outcome(first), outcome(again))
    fixed = make_trainer(staging={"change": "replace"})
    list(fixed.run())
    assert not same(fixed.state()["model"], first.state()["model"])
    assert "groups" not in fixed.state()


def test_images_seen_are_different_ones_of_all_stages(make_trainer):
    trainer = make_trainer("ascending", stage_epochs=1, staging={"change": "replace"})
    assert [evaluation.images_seen for evaluation in trainer.run()] == [7, 14, 20]


def test_images_that_are_left_out_do_not_train(make_trainer):
    trainer = make_trainer("conventional", stage_epochs=1, pacing={"by": "loss"})
    trainer.batches.groups[::2] = 0
    assert {evaluation.images_seen for evaluation in trainer.run()} == {10}


def test_paced_sampling_favours_low_values_only_at_first(make_trainer, monkeypatch):
    trainer = make_trainer(
        "conventional", count=40, stage_epochs=8, epoch_steps=20, pacing={"by": "sampling"}
    )
    means, epoch = [], trainer.batches.epoch

    def spy(*args):
        rows = [rows for _, rows in epoch(*args)]
        means.append(torch.cat(rows).double().mean().item())
        return epoch(*args)

    monkeypatch.setattr(trainer.batches, "epoch", spy)
    for _ in range(24):
        trainer.train(1)
    # by chances 2 .. 0 the mean row is about a third of the way, of 0..39; in the end half
    assert means[0] == pytest.approx(13, abs=2)
    assert means[-1] == pytest.approx(19.5, abs=2)


def test_a_paced_loss_weighs_each_real_image_by_its_place(make_trainer, monkeypatch):
    trainer = make_trainer("conventional", count=5, batch_size=5, pacing={"by": "loss"})
    seen, rows = [], next(trainer.batches.epoch(trainer.progress.stage, 0))[1]
    step = trainer.gan.step

    def spy(real, noise, weights, *others):
        seen.append(weights)
        return step(real, noise, weights, *others)

    monkeypatch.setattr(trainer.gan, "step", spy)
    trainer.train(1)
    assert seen[0].tolist() == pytest.approx((2 - rows / 2).tolist(), abs=1e-5)
