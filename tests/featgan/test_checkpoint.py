import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featgan.checkpoint import HEADER, Damaged, dump, load

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


def test_code_in_a_pickle_is_not_run(tmp_path):
    import hashlib
    import io

    class Malicious:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    buffer = io.BytesIO()
    torch.save({"model": Malicious()}, buffer)
    for content in (buffer.getvalue(), pickle.dumps(Malicious())):
        data = HEADER + hashlib.sha256(content).hexdigest().encode() + b"\n" + content
        with pytest.raises(Damaged):
            load(data)
    assert not (tmp_path / "owned").exists()
