"""Sweep files with random mistakes: each is planned, or refused with exit code 2 and one line."""

from __future__ import annotations

import copy
import io
import multiprocessing
import re
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from featgan.errors import UserError
from harness.plan.describe import describe
from harness.plan.grid import expand
from harness.plan.load import Scale, load
from harness.plan.settings import MOST_RUNS, Sweep
from harness.storage.redaction import redacted
from harness.storage.store import Store
from harness.sweep import main

ROOT = Path(__file__).parents[3]
CASES = 2000
EVERYTHING = """
name: everything
results: s3://bucket/folder
data:
  apples: {source: builtin, set: apples, count: 60, seed: 1, remove_duplicates: true}
  photos: {source: folder, path: [/data/a, "s3://bucket/b"], labels: folder}
  faces: {source: celeba, path: /data/celeba, attributes: {Male: true}, limit: 9, seed: 2}
  flowers: {source: torchvision, set: Flowers102, path: /data, options: {split: test}}
  both:
    source: union
    sources: {x: {source: folder, path: /x}, y: {source: builtin, set: digits}}
image_size: 64
features: {weights: random, seed: 3, input_size: 64, preprocessing: keras}
groups: {method: balanced, k: 4, tolerance: 0.2}
gan: {network: dcgan, width: 16, latent: 32}
training:
  stage_epochs: 20
  evaluate_every: 5
  epoch_steps: 7
  batch_size: 16
  learning_rate: 1e-4
  beta1: 0.4
  horizontal_flip: true
  precision: fp32
  deterministic: false
score: {classifier: trained, trained_on: [apples], count: 64, splits: 2, metrics: [fid, kid]}
grid:
  mode: [ascending, conventional]
  seed: [0, 7]
  data: [apples, both]
  groups.k: [2, 3]
  training.learning_rate: [1e-3, 0.01]
max_rejected: 0.5
sample_every: 3
rescore: true
verdict:
  claims: [ascending < conventional in score, ascending > conventional in diversity]
  difference: 0.1
  power: 0.9
  sd_from: results/earlier
resources: {cpus_per_run: 1, gpus_per_run: 0.5, max_concurrent: 2, checkpoint_minutes: 1.5}
small:
  data: {apples: {source: builtin, set: apples, count: 30}, both: {source: builtin, set: digits}}
  training: {stage_epochs: 2, evaluate_every: 1}
  grid: {mode: [descending], seed: [3], data: [apples]}
"""
VALID = [
    (ROOT / "sweeps" / "quickstart.yaml").read_text(),
    (ROOT / "sweeps" / "paper.yaml").read_text(),
    EVERYTHING,
]

TREES = {text: yaml.safe_load(text) for text in VALID}
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
JUNK = st.one_of(
    st.sampled_from(
        [
            *(0, -1, 1, 3, 10**9, -(10**9), 2**31, 2**63 - 1, 2**63, 10**400, 1.5, -0.0, 1e308),
            *(float("nan"), float("inf"), -float("inf"), True, False, None, [], {}, "", " "),
            *("\x00", "\x1b[2J", "a\nb", "a\u2028b", "🍎", "‮x", "ü" * 300, "../../etc", "/", "."),
            *("~", "$(touch x)", "`id`", "<script>", "{{7*7}}", "%s", "a" * 5000, "1e5", "0x10"),
            *("os:system", "s3://KEY:SECRET@bucket", "ray://x", "xyz://y", "null", "random"),
            *([[[[[]]]]], {"a": {"b": {"c": 1}}}, [1, "a", None], list(range(300)), {"source": 1}),
        ]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.dates(),
    st.binary(max_size=8),
).map(copy.deepcopy)  # a second change may reach into the first one's list, not into the sample


def places(tree: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return every place of a tree except its root."""
    if not isinstance(tree, dict | list):
        return []
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return [
        place for key, value in inner for place in [(*prefix, key), *places(value, (*prefix, key))]
    ]


def disturb(draw: st.DrawFn, tree: Any) -> None:
    """Change one thing in a tree."""
    *above, last = draw(st.sampled_from(places(tree) or [(None,)]))
    if last is None:
        return
    for key in above:
        tree = tree[key]
    what = draw(st.sampled_from(["drop", "junk", "nest", "rename", "add", "swap"]))
    value = tree[last]
    if what == "drop":
        del tree[last]
    elif what == "junk":
        tree[last] = draw(JUNK)
    elif what == "nest":
        tree[last] = draw(st.sampled_from([[value], {"a": value}, {last: value}, [value, value]]))
    elif what == "swap":
        keys = list(tree) if isinstance(tree, dict) else range(len(tree))
        other = draw(st.sampled_from(list(keys)))
        tree[last], tree[other] = tree[other], tree[last]
    elif isinstance(tree, dict):
        new = draw(st.one_of(st.text(max_size=12), st.integers(), st.sampled_from([f"{last}s"])))
        tree[new] = tree.pop(last) if what == "rename" else draw(JUNK)


def garble(draw: st.DrawFn, text: str) -> bytes:
    """Change the text itself, as an editor, a disk or an attacker might."""
    at = draw(st.integers(0, len(text)))
    lines = text.splitlines(keepends=True)
    line = draw(st.integers(0, len(lines) - 1)) if lines else 0
    what = draw(
        st.sampled_from(["none"] * 4 + ["cut", "insert", "twice", "tab", "bytes", "encoding"])
    )
    if what == "cut":
        text = text[:at]
    elif what == "insert":
        text = text[:at] + draw(st.sampled_from(SNIPPETS)) + text[at:]
    elif what == "twice":
        text = "".join([*lines[:line], *lines[line : line + 1] * 2, *lines[line + 1 :]])
    elif what == "tab":
        text = "".join([*lines[:line], "\t", *lines[line:]])
    data = text.encode("utf-8", "surrogatepass")
    if what == "bytes":
        return data[:at] + draw(st.binary(min_size=1, max_size=6)) + data[at:]
    if what == "encoding":
        codec = draw(st.sampled_from(["utf-16", "utf-32", "utf-8-sig", "latin-1"]))
        return text.encode(codec, "replace")
    return data


SNIPPETS = [
    *("\t", "&a ", "*a", "? ", "<<: *a\n", "!!python/object/apply:os.system [id]", "!!binary x"),
    *("!!set {a, b}", "!!omap [a: 1]", "!!int ''", "!!bool x", "!!timestamp x", "%YAML 9.9\n"),
    *("---\n", "...\n", "{", "[", "]", '"', "'", "|", "#", ": ", "- ", "2026-01-01", "\0", "\x85"),
    *("'\\ud800'", '"\\ud800"', '"\\0"', "a: &b [*b]\n", "[" * 5000, "1:" * 50, "9" * 5000),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    text = draw(st.sampled_from(VALID))
    tree = copy.deepcopy(TREES[text])
    changes = draw(st.integers(0, 3))
    for _ in range(changes):
        disturb(draw, tree)
    if changes:
        text = yaml.dump(tree, None, DUMPER, sort_keys=False, allow_unicode=draw(st.booleans()))
    return garble(draw, text)


def plan_or_reason(path: Path, data: bytes, scale: Scale = "full") -> Sweep | str:
    """Return the sweep of a file, whose cells are checked, or the line that refuses it."""
    path.write_bytes(data)
    try:
        sweep = load(path, scale)
    except UserError as error:
        return str(error)
    with suppress(UserError):  # an address that a store refuses, as the sweep starts
        Store(sweep.results)
    labels = [cell.label for cell in expand(sweep)]
    assert 0 < len(labels) <= MOST_RUNS
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", label) for label in labels)
    assert max(map(len, labels)) < 180
    return sweep


OUTCOMES = {"plan": 0, "reason": 0}


@pytest.mark.guarantee(
    "Sweep files",
    "Any sweep file is planned, or ends with exit code 2 and one line naming file, key and reason",
)
@settings(
    max_examples=CASES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),  # a failing file is small enough as it is
)
@given(data=mutated(), scale=st.sampled_from(["full"] * 3 + ["small"]))
@example(data=b"", scale="full")
@example(data=b"\x00" * 100, scale="full")
@example(data=bytes(range(256)), scale="full")
@example(data=b"\t", scale="small")
def test_a_mutated_file_is_a_plan_or_one_line(data: bytes, scale: Scale) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutated.yaml"
        found = plan_or_reason(path, data, scale)
        # the whole command for some of the files only; for each it would take minutes
        if isinstance(found, Sweep) and OUTCOMES["plan"] % 8 == 0:
            assert f"runs: {len(expand(found))}" in describe(found)
        if isinstance(found, str) and OUTCOMES["reason"] % 8 == 0:
            printed = io.StringIO()
            with redirect_stderr(printed):
                assert main([str(path), "--scale", scale, "--dry-run"]) == 2
            assert printed.getvalue() == f"featgan: {redacted(' '.join(found.split()))}\n"
    OUTCOMES["reason" if isinstance(found, str) else "plan"] += 1
    if isinstance(found, str):
        reason = found.removeprefix(f"{path}: ")
        assert reason != found, "the file is named"
        assert re.match(
            r".+: \S|[a-z_.]+ \(|a sweep file is|larger than|more than|not readable", reason
        )
        assert len(reason) < 1500  # all axes that a grid may have
        assert len(found.splitlines()) == 1
        assert found.isprintable() or not re.search(r"[\x00-\x1f\x7f]", found)


def test_the_mutations_make_plans_and_mistakes_alike() -> None:
    """Check that the test above, which runs first, tried both kinds of files."""
    if sum(OUTCOMES.values()) < CASES:
        pytest.skip("the mutations were not tried")
    assert OUTCOMES["plan"] > CASES / 10
    assert OUTCOMES["reason"] > CASES / 4


LARGE = {
    "many keys": "".join(f"k{n}:\n" for n in range(25_000)),
    "deep": "[" * 100_000,
    "deep blocks": "- " * 100_000,
    "sexagesimal": "a: " + "1:" * 60_000 + "1\n",
    "long": "a" * 2**24,
}

PARSE = """
import resource, sys
from pathlib import Path
from featgan.errors import UserError
from harness.plan.yaml_file import parse
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    parse(Path(sys.argv[1]))
    print("read")
except UserError:
    print("refused")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.guarantee(
    "Sweep files", "Too long or deep files are refused in seconds and little memory"
)
@pytest.mark.parametrize("kind", LARGE)
def test_large_files_are_refused_in_seconds_and_little_memory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "large.yaml"
    path.write_text(LARGE[kind])
    started = time.monotonic()
    out = subprocess.run(
        [sys.executable, "-c", PARSE, str(path)], capture_output=True, text=True, timeout=60
    ).stdout.split()
    assert time.monotonic() - started < 30
    assert out[0] == ("read" if kind == "many keys" else "refused")
    assert int(out[-1]) < 300_000, "kilobytes"


@pytest.mark.guarantee(
    "Sweep files",
    "10,000 runs are planned; over 100,000 are refused before they are expanded",
)
def test_ten_thousand_runs_are_planned_and_billions_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = "grid: {{mode: [ascending], data: [apples], seed: {}, groups.k: {}}}\n"
    text = VALID[0].partition("\ngrid:")[0] + "\n"
    path = tmp_path / "large.yaml"
    path.write_text(text + grid.format(list(range(200)), list(range(1, 51))))
    assert main([str(path), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "runs: 10000\n" in printed
    assert "checkpoints:" in printed
    numbers = list(range(1, 60))
    axes = ", ".join(f"{key}: {numbers}" for key in ("groups.k", "gan.width", "gan.latent"))
    path.write_text(text + f"grid: {{seed: {list(range(5000))}, {axes}}}\n")
    started = time.monotonic()
    with pytest.raises(UserError, match=r"grid: 6,161,370,000 runs, more than 100,000: shorten"):
        load(path)
    assert time.monotonic() - started < 10


def test_a_run_of_many_axes_still_fits_into_a_file_name(tmp_path: Path) -> None:
    keys = ["groups.tolerance", "training.learning_rate", "training.beta1", "training.beta2"]
    axes = ", ".join(f"{key}: [0.123456789012345, 0.1]" for key in keys)
    path = tmp_path / "many.yaml"
    path.write_text(VALID[0].partition("\ngrid:")[0] + "\n" + f"grid: {{{axes}, features.weights: ["
                    f"random, {'x' * 80}]}}\n")  # fmt: skip
    cells = expand(load(path))
    assert max(len(cell.label) for cell in cells) < 180
    assert len({cell.label for cell in cells}) == len(cells)


MISTAKES = {
    "negative": ("batch_size: 32", "batch_size: -32"),
    "unknown": ("gan:", "gann:"),
    "missing": ("set: apples,", ""),
    "not a list": ("[descending, ascending, conventional]", "descending"),
    "control character": ("image_size: 32", 'image_size: 32\nresults: "a\\0b"'),
    "outside": ("apples:", "../apples:"),
    "code": ("width: 16", "width: !!python/object/apply:os.system [id]"),
    "huge": ("latent: 64", "latent: 9" + "0" * 5000),
    "not a number": ("learning_rate: 0.001", "learning_rate: .nan"),
    "twice": ("image_size: 32", "image_size: 32\nimage_size: 32"),
    "tab": ("image_size: 32", "\timage_size: 32"),
    "nested": ("width: 16", "width: {width: 16}"),
    "unicode": ("set: apples", "set: \N{GREEN APPLE}"),
    "date": ("name_or_none", ""),
    "too many runs": ("seed: [0, 1, 2]", f"seed: {list(range(20_000))}"),
    "no function": ("width: 16", "network: os:nothing, width: 16"),
    "user-defined mode": ("[descending, ascending, conventional]", "[os:getcwd]"),
    "storage": ("image_size: 32", "image_size: 32\nresults: xyz://bucket"),
}
ONLY_DRY = ("user-defined mode",)
"""A sweep that runs reports these later, after its data sets are counted."""
COMMANDS = multiprocessing.get_context("forkserver")
COMMANDS.set_forkserver_preload(["harness.sweep"])
COMMAND = """
import os, sys
for descriptor, file in ((1, {out!r}), (2, {err!r})):
    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
from harness.sweep import main
sys.exit(main({arguments!r}))
"""
"""Code of a process forked from one that has loaded the command's modules."""


@pytest.mark.guarantee(
    "Sweep files",
    "Any sweep file is planned, or ends with exit code 2 and one line naming file, key and reason",
)
@pytest.mark.parametrize("dry", [True, False], ids=["dry", "real"])
@pytest.mark.parametrize("kind", MISTAKES)
def test_the_command_ends_with_2_and_one_line(kind: str, dry: bool, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(VALID[0].replace(*MISTAKES[kind], 1))
    if kind == "date":
        path = tmp_path / "2026\n-11-22.yaml"  # the file's name is the sweep's
        path.write_text(VALID[0])
    out, err = tmp_path / "out", tmp_path / "err"
    dry = (dry or kind in ONLY_DRY) and kind != "storage"
    arguments = [str(path), *(["--dry-run"] if dry else [])]
    code = COMMAND.format(out=str(out), err=str(err), arguments=arguments)
    process = COMMANDS.Process(target=exec, args=(code,))
    process.start()
    process.join(120)
    assert process.exitcode == 2
    assert dry or out.read_text() == ""  # a dry run shows the settings first
    assert len(err.read_text().splitlines()) == 1
    assert err.read_text().startswith("featgan: ")
    assert "Traceback" not in err.read_text()
