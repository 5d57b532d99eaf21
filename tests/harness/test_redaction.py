"""Keys and tokens in addresses are used, and never shown or kept."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from featgan.errors import UserError
from harness.config import load
from harness.redaction import redacted, redacted_tree
from harness.runs import mark_failed
from harness.schemas import SweepRecord
from harness.screen import Screen
from harness.store import Store
from harness.sweep import main

SECRET = "AKIA1234SECRET"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"s3://{SECRET}:x/y+z@bucket/a", None),
        (f"s3://KEY:{SECRET}@bucket/a: denied", "s3://***@bucket/a: denied"),
        (f"https://me:{SECRET}@host/x?y=1", "https://***@host/x?y=1"),
        (
            f"see https://h/x?token={SECRET}&a=1, please",
            "see https://h/x?token=***&a=1, please",
        ),
        (f"https://h/x?a=1&X-Amz-Signature={SECRET}", "https://h/x?a=1&X-Amz-Signature=***"),
        (f"no bucket 'KEY:{SECRET}/+x@bucket': denied", "no bucket '***@bucket': denied"),
        ("line 8: a@b, 12:30 at c@d", "line 8: a@b, 12:30 at c@d"),
        (f"az://c/x?sig={SECRET}'", "az://c/x?sig=***'"),
        ("s3://bucket/a@b and me@example.org", "s3://bucket/a@b and me@example.org"),
        ("/data/a?b=c", "/data/a?b=c"),
    ],
)
def test_secrets_of_addresses_are_hidden_and_nothing_else(text: str, shown: str | None) -> None:
    assert redacted(text) == shown if shown else SECRET not in redacted(text)


SWEEP = f"""
results: memory://KEY:{SECRET}@bucket/results
data:
  a: {{source: folder, path: ["s3://KEY:{SECRET}@bucket/a", "https://h/b?token={SECRET}"]}}
features: {{weights: "https://KEY:{SECRET}@h/w"}}
"""


def test_a_sweeps_secrets_are_in_nothing_that_it_prints_or_keeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(uri: str) -> None:
        raise UserError(f"data: {uri} cannot be listed: bucket '{uri.partition('://')[2]}'")

    monkeypatch.setattr("harness.folders._find_remote", unreachable)
    path = tmp_path / "secret.yaml"
    path.write_text(SWEEP)
    main([str(path), "--dry-run"])
    said = capsys.readouterr()
    assert "s3://***@bucket/a" in said.out
    assert SECRET not in said.out + said.err
    path.write_text(SWEEP + f"nonsense: s3://KEY:{SECRET}@bucket\n")
    assert main([str(path)]) == 2
    assert SECRET not in capsys.readouterr().err

    out = io.StringIO()
    Screen(out).say(f"results in s3://KEY:{SECRET}@bucket")
    assert out.getvalue() == "results in s3://***@bucket\n"

    store = Store(f"memory://KEY:{SECRET}@bucket/results")
    assert SECRET not in repr(store) + store.join("a/b")
    assert SECRET in store.root
    path.write_text(SWEEP)
    settings = load(path).model_dump(mode="json")
    assert SECRET in json.dumps(settings)
    assert SECRET not in json.dumps(redacted_tree(settings))
    record = SweepRecord(name="a", cells=[settings], notes=[f"s3://a:{SECRET}@b"])
    assert SECRET not in record.to_json().decode()
    assert SweepRecord.model_validate_json(record.to_json()).notes == ["s3://***@b"]


def test_the_reason_of_a_failure_tells_no_secret(tmp_path: Path) -> None:
    class Failed:
        folder = "s/runs/a"
        name = "a"

    store = Store(str(tmp_path))
    mark_failed(store, Failed(), f"OSError: s3://KEY:{SECRET}@bucket: denied")
    kept = store.get("s/runs/a/failures.txt").decode()
    assert "s3://***@bucket: denied" in kept
    assert SECRET not in kept
