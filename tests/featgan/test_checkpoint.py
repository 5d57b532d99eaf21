import pickle
import tracemalloc

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featgan import checkpoint
from featgan.checkpoint import Damaged, dump, load
from featgan.errors import UserError

STATE = {"weights": torch.arange(6.0).view(2, 3), "epoch": 3, "peaks": [(1, 2.5), None]}


def test_what_is_dumped_is_loaded():
    state = load(dump(STATE))
    assert torch.equal(state.pop("weights"), STATE["weights"])
    assert state == {"epoch": 3, "peaks": [(1, 2.5), None]}


@given(st.data())
def test_any_flipped_bit_and_any_cut_is_found(data):
    whole = dump(STATE)
    position = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[position] ^= 1 << data.draw(st.integers(0, 7))
    for damaged in (bytes(flipped), whole[:position]):
        with pytest.raises(Damaged):
            load(damaged)


def test_another_version_is_named(monkeypatch):
    monkeypatch.setattr(checkpoint, "VERSION", 3)
    later = dump(STATE)
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"another version of featgan \(format 3, this one has 2\)"):
        load(later)


def test_a_large_checkpoint_is_in_memory_once():
    state = {"weights": torch.zeros(2**20)}
    tracemalloc.start()  # counts buffers, and no tensors
    whole = dump(state)
    written = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    load(whole)
    read = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert written < 1.5 * len(whole)
    assert read < 1.5 * len(whole)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_short_memory_is_not_called_a_damaged_checkpoint(monkeypatch, error):
    """Otherwise the run would start again and overwrite it."""

    def short(*_, **__):
        raise error

    data = dump({"a": 1})
    monkeypatch.setattr(torch, "load", short)
    with pytest.raises(type(error)) as caught:
        load(data)
    assert caught.value is error


def test_code_in_a_pickle_is_not_run(tmp_path, monkeypatch):
    class Malicious:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    with pytest.raises(Damaged):
        load(dump({"model": Malicious()}))
    monkeypatch.setattr(torch, "save", pickle.dump)  # the older format of PyTorch's files
    with pytest.raises(Damaged):
        load(dump(Malicious()))
    assert not (tmp_path / "owned").exists()
