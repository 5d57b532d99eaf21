"""Credentials in addresses: a sweep file with one is refused, and none is ever shown."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from featgan.errors import UserError
from harness.display import Screen
from harness.runs.status import record_failure
from harness.storage.redaction import redacted
from harness.storage.store import Store
from harness.sweep import main

pytestmark = pytest.mark.guarantee(
    "Exposure",
    "Secrets appear nowhere: not in output, logs, records, reports or run names",
)

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


@pytest.mark.parametrize(
    "line",
    [
        f"results: s3://{LONG}@bucket/x",
        f"results: gs://b/x?token={SECRET}",
        f'data: {{a: {{source: folder, path: ["s3://KEY:{SECRET}@bucket/a"]}}}}',
        f'features: {{weights: "https://KEY:{SECRET}@h/w"}}',
        f"grid: {{features.weights: [random, 's3://{LONG}@bucket/w']}}",
        f"max_rejected: s3://{LONG}@bucket",
        f"gan: [s3://{LONG}@bucket]",
        f'"s3://{LONG}@bucket": 1',
        f'"s3://{LONG}@bucket": 1\n"s3://{LONG}@bucket": 2',
        f'grid: {{"s3://{LONG}@bucket": [1]}}',
        f'small: {{results: "s3://{LONG}\\x01@bucket"}}',
    ],
    ids=[
        *("results", "token", "data", "weights", "axis value", "number", "list", "key"),
        *("key twice", "axis", "control character"),
    ],
)
def test_a_sweep_file_with_credentials_is_refused_unseen(
    tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "secret.yaml"
    data = "" if line.startswith("data") else "data: {a: {source: builtin, set: digits}}\n"
    path.write_text(f"{data}{line}\n")
    for options in ([], ["--dry-run"]):
        assert main([str(path), *options]) == 2
        printed = capsys.readouterr()
        assert (
            "an address in a sweep file holds no credentials; put them into the environment"
            in printed.err
        )
        for part in (SECRET, "AKIAI", "wJalr", "bPxRf"):
            assert part not in printed.out + printed.err
    assert os.listdir(tmp_path) == ["secret.yaml"]


def test_what_is_said_is_redacted() -> None:
    out = io.StringIO()
    Screen(out).say(f"results in s3://KEY:{SECRET}@bucket")
    assert out.getvalue() == "results in s3://***@bucket\n"


def test_a_store_without_a_bucket_is_refused() -> None:
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
