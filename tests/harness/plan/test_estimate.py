"""What `--dry-run` and `--probe` tell of a sweep's cost."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from featgan import checkpoint
from harness.plan import estimate as module
from harness.plan.estimate import describe, estimate, fitting, probe
from harness.plan.settings import Cell, Method, Resources, Sweep

METHOD = {
    "image_size": 32,
    "gan": {"width": 2, "latent": 4},
    "training": {"stage_epochs": 4, "evaluate_every": 2, "batch_size": 8},
    "score": {"classifier": "trained", "trained_on": ["a"], "count": 16, "splits": 2},
}
SWEEP = METHOD | {
    "name": "s",
    "data": {
        "a": {"source": "builtin", "set": "apples", "count": 45},
        "d": {"source": "builtin", "set": "digits", "count": 90},
    },
    "grid": {"mode": ["ascending", "conventional"], "seed": [0, 1]},
}


@pytest.mark.parametrize(
    ("mode", "steps", "evaluations"),
    [("ascending", 4 * (2 + 4 + 6), 6), ("conventional", 12 * 6, 6)],  # of 15, 30, 45 images
)
def test_steps_and_images_are_those_of_the_stages(mode, steps, evaluations):
    cost = estimate(Cell("a", mode, 0, Method.model_validate(METHOD)), images=45)
    assert (cost.steps, cost.images) == (steps, 8 * steps)
    assert (cost.evaluations, cost.score_images) == (evaluations, 16 * evaluations)


def test_fixed_steps_an_epoch_need_no_images():
    method = Method.model_validate(METHOD | {"training": METHOD["training"] | {"epoch_steps": 5}})
    assert estimate(Cell("a", "ascending", 0, method), images=45).steps == 12 * 5


def test_a_checkpoint_is_as_large_as_foretold():
    """The model and its peak: parameters, two moments of Adam each, batch norm's statistics."""
    method = Method.model_validate(METHOD | {"gan": {"width": 16, "latent": 64}})
    bytes_of_two_networks = module.model_bytes(method)
    from featgan.gans.registry import build

    networks = build(method.gan, 32, 0)
    state = {}
    for network in networks:
        adam = torch.optim.Adam(network.parameters(), fused=True)
        sum(parameter.sum() for parameter in network.parameters()).backward()
        adam.step()
        state |= {id(network): network.state_dict(), id(adam): adam.state_dict()}
    assert len(checkpoint.dump(state)) == pytest.approx(bytes_of_two_networks, rel=0.05)


def test_metrics_take_memory_for_the_features_of_all_real_images():
    def memory(score):
        method = Method.model_validate(METHOD | {"score": score})
        return estimate(Cell("a", "ascending", 0, method), images=1000).memory

    small, large = METHOD["score"], {"classifier": "inception", "count": 16, "splits": 2}
    # the real ones in float64 and what a covariance takes; the 16 generated ones twice
    assert memory(small | {"metrics": ["fid"]}) - memory(small) == (3 * 1000 + 2 * 16) * 8 * 64
    assert memory(large | {"metrics": ["kid"]}) - memory(large) == (3 * 1000 + 2 * 16) * 8 * 2048
    more = large | {"count": 1016}
    assert memory(more) - memory(large) == 1000 * (8 * (2048 + 1008) + 16 * 1008)


def test_images_that_stay_on_disk_take_no_memory():
    method = Method.model_validate(METHOD | {"image_size": 128})
    fit = module.RESIDENT_BYTES // (3 * 128**2)
    cell = Cell("a", "ascending", 0, method)
    empty, most, more = (estimate(cell, images).memory for images in (0, fit, fit + 1))
    assert most - empty == fit * 3 * 128**2
    assert more == empty


@pytest.mark.parametrize("criterion", ["peak", "smoothed_peak"])
def test_checkpoints_take_at_most_what_is_foretold(criterion):
    """Of the two that are kept, the largest: midway, while several models may become the peak."""
    method = Method.model_validate(
        METHOD
        | {"gan": {"width": 8, "latent": 16}, "stages": {"criterion": criterion, "window": 3}}
        | {"training": METHOD["training"] | {"stage_epochs": 6, "evaluate_every": 1}}
    )
    images = module._MadeUp(method)
    classifier = module._classifier(method, images, torch.device("cpu"))
    trainer = module.StagedTrainer(
        images,
        np.ones(len(images), int),
        module.plan("conventional", 1, 6),
        module.Score(classifier, method.score),
        gan=method.gan,
        training=method.training.model_copy(update={"epoch_steps": 1}),
        seed=0,
        device=torch.device("cpu"),
        staging=method.stages,
    )
    largest = max(len(checkpoint.dump(trainer.state())) for _ in trainer.run())
    foretold = estimate(Cell("a", "conventional", 0, method), 256).checkpoint_bytes
    assert 2 * largest == pytest.approx(foretold, rel=0.1)


def test_a_sweep_costs_what_its_runs_cost_and_as_much_memory_as_the_largest():
    text = describe(Sweep.model_validate(SWEEP))
    assert "images: a 45, d 90" in text
    # ascending: 4 × (2 + 4 + 6) and 4 × (4 + 8 + 12); conventional: 12 × 6 and 12 × 12; two seeds
    assert "training: 720 steps, 5,760 images" in text
    assert "scoring: 48 evaluations, 768 images" in text


def test_without_the_images_a_sweep_can_still_be_looked_at():
    nowhere = {"source": "folder", "path": "/nowhere/at/all"}
    score = METHOD["score"] | {"classifier": "inception", "trained_on": None}
    text = describe(Sweep.model_validate(SWEEP | {"data": {"a": nowhere}, "score": score}))
    assert text.startswith("estimate: none yet: ")
    assert "/nowhere/at/all" in text


def test_how_many_runs_fit(monkeypatch):
    monkeypatch.setattr(module.os, "cpu_count", lambda: 8)
    total = module.os.sysconf("SC_PAGE_SIZE") * module.os.sysconf("SC_PHYS_PAGES")
    cpu = torch.device("cpu")
    assert fitting(total // 4, Resources(), cpu) == 4
    assert fitting(total // 20, Resources(), cpu) == 8
    assert fitting(total // 20, Resources(cpus_per_run=3), cpu) == 2
    assert fitting(total // 20, Resources(max_concurrent=1), cpu) == 1
    assert fitting(2 * total, Resources(), cpu) == 1


def test_what_fits_on_a_gpu_is_a_matter_of_its_memory_not_of_the_file(monkeypatch):
    gpu = SimpleNamespace(total_memory=80 * module.GIB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cuda = torch.device("cuda")
    for asked in (None, 0.5, 1.0, 2.0):
        assert fitting(7 * module.GIB, Resources(gpus_per_run=asked), cuda) == 11
    assert fitting(81 * module.GIB, Resources(), cuda) == 1
    text = module._on_gpus(11, 30.0, runs=20)
    assert "11 of them fit on each GPU (resources.gpus_per_run: 0.09)" in text
    assert 11 * 0.09 <= 1
    assert text.endswith("2 GPUs here: about 15.00 hours or less")  # not 11 times as fast
    assert "about 20.00 hours" in module._on_gpus(11, 30.0, runs=3)  # one GPU has two of them


def test_a_run_on_a_gpu_also_has_its_images_and_the_models_of_its_peaks():
    method = Method.model_validate(METHOD)
    model = module.model_bytes(method)
    more = module.unmeasured_bytes(method, images=1000, room=1000 * 3 * 32 * 32)
    assert more - module.CONTEXT_BYTES == 1000 * 3 * 32 * 32 + 2 * model
    smoothed = METHOD | {"stages": {"criterion": "smoothed_peak", "window": 5}}
    more = module.unmeasured_bytes(Method.model_validate(smoothed), images=10**6, room=10**9)
    assert more - module.CONTEXT_BYTES == (1 + method.stages.models_kept + 2) * model


def test_a_probe_times_real_steps_and_tells_hours(monkeypatch):
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.1)
    text = probe(Sweep.model_validate(SWEEP))
    found = re.search(
        r"8 runs of dcgan at 32 px, width 2, .*: ([\d.]+) ms a step, ([\d.]+) s a score", text
    )
    step, score = map(float, found.groups())
    assert step > 0.1
    hours = (720 * step / 1e3 + 48 * score) / 3600
    told = float(re.search(r"one run after another: ([\d.]+) hours", text)[1])
    assert told == pytest.approx(hours, abs=0.006)


def test_a_probe_tells_kinds_of_steps_apart_and_measures_metrics(monkeypatch):
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.1)
    score = METHOD["score"] | {"metrics": ["fid"]}
    asked = []
    real = module.Score.evaluate

    def evaluate(self, generate):
        asked.append((len(self.real), self.settings.metrics))
        return real(self, generate)

    monkeypatch.setattr(module.Score, "evaluate", evaluate)
    axes = {"training.d_steps": [1, 2], "pacing.by": ["none", "loss"]}
    text = probe(Sweep.model_validate(SWEEP | {"score": score, "grid": SWEEP["grid"] | axes}))
    assert text.count("8 runs of dcgan") == 4
    assert asked == [(90, ["fid"])] * 8  # two evaluations a kind, of the larger data set


def test_the_small_classifier_has_as_many_features_as_are_reckoned_with():
    method = Method.model_validate(METHOD)
    classifier = module._classifier(method, module._MadeUp(method), torch.device("cpu"))
    assert classifier.width == module.SMALL_CNN_FEATURES
