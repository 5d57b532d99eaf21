"""Keys and tokens in addresses are used, and never shown or kept."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import yaml

from featgan.errors import UserError
from harness.display import Screen
from harness.records.sweep_records import SweepRecord
from harness.runs.status import record_failure
from harness.sources import FolderSource
from harness.storage.redaction import redacted, redacted_tree
from harness.storage.store import Store
from harness.sweep import main

SECRET = "AKIA1234SECRET"
LONG = "AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
"""A key and a secret of the lengths that AWS gives them: longer than what an error repeats."""


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
        (f"s3://KEY:p@{SECRET}@bucket/a", "s3://***@bucket/a"),
        (f"s3://KEY:'\"{SECRET}'@bucket/a", "s3://***@bucket/a"),
        (f"'s3://KEY:{SECRET}@b' and 's3://c/d'", "'s3://***@b' and 's3://c/d'"),
        (f"https://h/x?auth={SECRET}", "https://h/x?auth=***"),
        (f"https://h/x?a=b;pass={SECRET}", "https://h/x?a=b;pass=***"),
        (f"https://h/x#access_token={SECRET}", "https://h/x#access_token=***"),
        (f"AccountName=a;AccountKey={SECRET}==;x", "AccountName=a;AccountKey=***"),
        (f"AccountKey={SECRET}", "AccountKey=***"),
        ("design=3, monkey=4 k?x=1#y", "design=3, monkey=4 k?x=1#y"),
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


@pytest.mark.parametrize("key", ["results", "data", "features"])
def test_a_file_with_credentials_is_refused(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text(yaml.safe_dump({key: yaml.safe_load(SWEEP)[key]}))
    assert main([str(path), "--dry-run"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert SECRET not in printed.err
    assert "an address in a sweep file holds no credentials" in printed.err


def test_screen_store_and_records_hide_secrets() -> None:
    out = io.StringIO()
    Screen(out).say(f"results in s3://KEY:{SECRET}@bucket")
    assert out.getvalue() == "results in s3://***@bucket\n"

    store = Store(f"memory://KEY:{SECRET}@bucket/results")
    assert SECRET not in repr(store) + store.join("a/b")
    assert SECRET in store.root
    settings = yaml.safe_load(SWEEP)
    assert SECRET in json.dumps(settings)
    assert SECRET not in json.dumps(redacted_tree(settings))
    cell = settings | {"data": f"s3://a:{SECRET}@b", "mode": "ascending", "seed": 0}
    record = SweepRecord(name="a", cells=[cell], notes=[f"s3://a:{SECRET}@b"])
    assert SECRET not in record.to_json().decode()
    assert SweepRecord.model_validate_json(record.to_json()).notes == ["s3://***@b"]


@pytest.mark.parametrize(
    "line",
    [
        f"max_rejected: s3://{LONG}@bucket",
        f"gan: [s3://{LONG}@bucket]",
        f'"s3://{LONG}@bucket": 1',
        f"grid: {{mode: s3://{LONG}@bucket}}",
        f'grid: {{"s3://{LONG}@bucket": [1]}}',
        f"grid: {{features.weights: [random, 's3://{LONG}@bucket/w']}}",
        f"results: s3://{LONG}@bucket/x",
    ],
    ids=["value", "list", "key", "mode", "axis", "axis value", "results"],
)
def test_credentials_anywhere_in_a_file_are_hidden(
    tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text(f"data: {{a: {{source: builtin, set: digits}}}}\n{line}\n")
    assert main([str(path)]) == 2
    told = capsys.readouterr().err
    assert "***" in told
    assert not any(part in told for part in ("AKIAI", "wJalr", "bPxRf"))


def test_a_bucket_is_opened_without_keys_in_its_address() -> None:
    for root in (f"s3://{LONG}@bucket/x", f"gs://b/x?token={SECRET}"):
        with pytest.raises(UserError, match="address takes no keys; put them into the env"):
            Store(root)
        with pytest.raises(UserError, match=r"data: .* address takes no keys"):
            FolderSource(source="folder", path=root).listing(32)
    with pytest.raises(UserError, match="results: s3:// names no bucket"):
        Store("s3://")


def test_the_reason_of_a_failure_tells_no_secret(tmp_path: Path) -> None:
    class Failed:
        folder = "s/runs/a"
        name = "a"

    store = Store(str(tmp_path))
    record_failure(store, Failed(), f"OSError: s3://KEY:{SECRET}@bucket: denied")
    kept = store.get("s/runs/a/failures.txt").decode()
    assert "s3://***@bucket: denied" in kept
    assert SECRET not in kept
