"""The guarantees of the trainer on an NVIDIA GPU: `pytest -m gpu tests/featgan/test_gpu.py`."""

from collections import Counter

import numpy as np
import pytest
import torch

from featgan import checkpoint, precision
from featgan.batches import Batches
from featgan.gans import cuda_graph
from featgan.gans.cuda_graph import CudaGraph
from featgan.settings import TrainingSettings
from featgan.staging.stages import Stage

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.guarantee(
        "Faults",
        "A run continued or replayed on a GPU ends with the undisturbed bytes",
    ),
]


@pytest.fixture
def make_on_gpu(make_trainer):
    def make(*arguments, **options):
        if not torch.cuda.is_available():
            pytest.skip("no GPU")
        return make_trainer(*arguments, device="cuda", **options)

    return make


@pytest.mark.parametrize("mode", ["ascending", "conventional"])
@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("number", ["fp32", "bf16"])
def test_a_run_continued_on_a_gpu_ends_with_the_same_bytes(
    make_on_gpu, mode, size, number, same, outcome
):
    options = {"mode": mode, "size": size, "precision": number, "width": 16, "stage_epochs": 2}
    straight = make_on_gpu(**options)
    list(straight.run())
    stopped = make_on_gpu(**options)
    while not stopped.progress.finished:
        next(stopped.run())
        saved = checkpoint.dump(stopped.state())
        torch.cuda.manual_seed(1)  # global generators must not matter
        stopped = make_on_gpu(**options)
        stopped.restore(checkpoint.load(saved))
    assert same(outcome(stopped), outcome(straight))


GANS = {
    "dcgan": {},
    "sngan-ema": {"network": "sngan", "ema": 0.9},
    "wgan-gp": {"network": "wgan-gp"},
    "r1-augment": {"r1": 1.0, "augment": ["color", "translation", "cutout"]},
    "r3gan": {"network": "r3gan", "r1": 1.0, "top_k": 0.5},
    "conditional": {"network": "r3gan", "r1": 1.0, "conditional": True},
    "conditional-sngan": {"network": "sngan", "conditional": True},
}


@pytest.mark.parametrize("number", ["fp32", "bf16"])
@pytest.mark.parametrize("gan", GANS.values(), ids=GANS.keys())
def test_a_replayed_step_has_the_bytes_of_one_that_is_not(
    make_on_gpu, same, outcome, monkeypatch, gan, number
):
    """Over three stages, with steps of D alone between those of both."""
    options = {"precision": number, "stage_epochs": 24, "evaluate_every": 8, "width": 16}
    options |= {"gan": gan, "pacing": {"by": "loss"}}
    kinds, called = Counter(), CudaGraph.__call__

    def counted(graph, work, *given):
        (update_g,) = work.args
        kinds[update_g] += graph._graph is not None
        return called(graph, work, *given)

    monkeypatch.setattr(CudaGraph, "__call__", counted)
    replaying = make_on_gpu("ascending", **options)
    list(replaying.run())
    assert kinds[True] > 5
    assert kinds[False] > 20 or gan.get("network") not in ("sngan", "wgan-gp")
    kinds.clear()
    monkeypatch.setattr(cuda_graph, "WARM_UP", 10**9)
    plain = make_on_gpu("ascending", **options)
    list(plain.run())
    assert not any(kinds.values())
    assert same(outcome(replaying), outcome(plain))


@pytest.mark.parametrize("gan", GANS.values(), ids=GANS.keys())
def test_a_run_goes_on_from_a_checkpoint_into_replays(make_on_gpu, same, outcome, gan):
    options = {"stage_epochs": 16, "evaluate_every": 8, "width": 16, "gan": gan}
    straight = make_on_gpu("conventional", **options)
    list(straight.run())
    stopped = make_on_gpu("conventional", **options)
    next(stopped.run())
    saved = checkpoint.dump(stopped.state())
    again = make_on_gpu("conventional", **options)
    again.restore(checkpoint.load(saved))
    list(again.run())
    assert same(outcome(again), outcome(straight))


def test_a_state_from_a_cpu_is_made_capturable(make_on_gpu):
    trainer = make_on_gpu("conventional")
    trainer.train(4)
    state = trainer.gan.state()
    for name in ("adam_g", "adam_d"):
        for group in state[name]["param_groups"]:
            group["capturable"] = False
    trainer.gan.load_state(state)
    trainer.train(4)


def test_stages_leave_no_memory_behind(make_on_gpu):
    trainer = make_on_gpu("conventional", width=16)
    held = []
    for _ in range(6):
        trainer.train(4)
        trainer.gan.load_state(trainer.gan.state())
        held.append(torch.cuda.memory_allocated())
    assert held[2:] == [held[2]] * 4


@pytest.mark.parametrize("gan", GANS.values(), ids=GANS.keys())
def test_every_kind_of_gan_is_the_same_twice_on_a_gpu(make_on_gpu, same, outcome, gan):
    runs = [
        make_on_gpu("conventional", precision="bf16", stage_epochs=2, width=16, gan=gan)
        for _ in range(2)
    ]
    for run in runs:
        list(run.run())
    assert same(outcome(runs[0]), outcome(runs[1]))


def test_user_defined_networks_are_not_captured(make_on_gpu, tmp_path, monkeypatch):
    """A user-defined step may read values or take other branches in the next call."""
    (tmp_path / "user_networks.py").write_text(
        "from featgan.gans.dcgan import dcgan\n\n\ndef networks(gan, size):\n"
        "    return dcgan(gan, size)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    trainer = make_on_gpu("conventional", gan={"network": "user_networks:networks"})
    trainer.train(4)
    assert not trainer.gan._graphs


def test_the_same_run_twice_is_the_same_to_the_last_bit(make_on_gpu, same, outcome):
    runs = [make_on_gpu("conventional", size=64, width=32, precision="bf16") for _ in range(2)]
    for run in runs:
        list(run.run())
    assert same(outcome(runs[0]), outcome(runs[1]))


def test_measuring_leaves_the_training_on_a_gpu_the_same(make_on_gpu, same):
    never, always = make_on_gpu("conventional"), make_on_gpu("conventional")
    never.train(4)
    for _ in range(4):
        always.train(1)
        always.evaluate()
    assert same(never.state()["model"], always.state()["model"])


def test_fp32_on_a_gpu_rounds_as_fp32_and_not_as_tf32(make_on_gpu):
    """TF32 keeps 10 bits of a factor: it would be off by about 1e-3."""
    trainer = make_on_gpu("conventional", size=64, width=32)
    noise = trainer._noise[:8]
    images = trainer.gan.images(noise)
    exact = trainer.gan.generator.double().eval()(noise.double())
    assert (images - exact).abs().max() < 1e-5 * exact.abs().max()


def test_metrics_are_deterministic(make_on_gpu):
    metrics = ["fid", "kid", "precision_recall", "density_coverage"]
    first, second = (
        next(make_on_gpu("conventional", metrics=metrics).run()).metrics for _ in range(2)
    )
    assert first == second
    assert len(first) == 6


class Pictures:
    """Fifty images, read as those of an image pack are."""

    size = 32
    pixels = np.random.default_rng(0).integers(0, 256, (50, 3, 32, 32), dtype=np.uint8)

    def __len__(self):
        return 50

    def rows(self, rows):
        return self.pixels[rows]


def epoch_of_pictures():
    batches = Batches(
        Pictures(),
        np.ones(50),
        TrainingSettings(batch_size=16, horizontal_flip=True),
        seed=0,
        device=torch.device("cuda"),
    )
    return batches.epoch(Stage(1, (1,), 1), 0)


def test_memory_mapped_images_reach_the_gpu_as_the_resident_ones(monkeypatch):
    resident = [images for images, _ in epoch_of_pictures()]
    monkeypatch.setattr(Batches, "_fits", lambda self: False)
    mapped = [images for images, _ in epoch_of_pictures()]
    assert resident[0].device.type == "cuda"
    assert all(map(torch.equal, mapped, resident))


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("fits", [True, False], ids=["resident", "mapped"])
def test_no_batch_lets_the_host_wait_for_the_gpu(monkeypatch, fits):
    monkeypatch.setattr(Batches, "_fits", lambda self: fits)
    epoch = epoch_of_pictures()
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(epoch)) == 4
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("gan", GANS.values(), ids=GANS.keys())
def test_no_step_lets_the_host_wait_for_the_gpu(make_on_gpu, gan):
    pacing = {"by": "loss"}
    trainer = make_on_gpu("conventional", gan=gan, width=16, count=400, pacing=pacing)
    trainer.train(1)  # recording waits
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer._train_epoch()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_auto_is_bf16_where_the_gpu_has_it():
    expected = torch.cuda.get_device_capability() >= (8, 0)
    assert (precision.resolve("auto", torch.device("cuda")) == torch.bfloat16) == expected
