"""Nothing that is read is executed: no shell, eval or pickle, and one importer by name."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.report import build

pytestmark = pytest.mark.guarantee(
    "Sweep files",
    "Nothing in a file reaches a shell, `eval` or a pickle; only a sweep file on the command "
    "line imports functions",
)

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("featgan/**/*.py"), *ROOT.glob("harness/**/*.py")])
NEVER = {
    *(
        "eval",
        "exec",
        "compile",
        "__import__",
        "os.system",
        "os.popen",
        "os.execv",
        "runpy.run_path",
    ),
    *("pickle.load", "pickle.loads", "marshal.loads", "yaml.unsafe_load", "yaml.full_load"),
    *("shelve.open", "joblib.load", "pd.read_pickle", "subprocess.getoutput"),
}
IMPORTERS = {"featgan/user_code.py"}
OF_TUNE = {("harness/runs/callback.py", "pickle.loads")}
"""An error that Tune wrote to the driver's scratch folder just before."""


def calls(path: Path) -> list[tuple[str, dict[str, str], list[str]]]:
    """Return each call of a module as source text: function, keywords, arguments."""
    return [
        (
            ast.unparse(node.func),
            {word.arg or "**": ast.unparse(word.value) for word in node.keywords},
            [ast.unparse(argument) for argument in node.args],
        )
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_no_call_runs_what_was_read(path: Path) -> None:
    for called, words, arguments in calls(path):
        if (path.relative_to(ROOT).as_posix(), called) not in OF_TUNE:
            assert called not in NEVER, called
        assert words.get("shell") != "True"
        if called == "torch.load":
            assert words.get("weights_only") == "True"
        if called.endswith("np.load"):
            assert words.get("allow_pickle", "False") == "False"
        if called == "yaml.load":
            assert arguments[1:] == ["_Loader"], "a subclass of SafeLoader"
        if called == "importlib.import_module":
            assert path.relative_to(ROOT).as_posix() in IMPORTERS


def test_a_run_record_that_names_a_function_imports_nothing(
    tmp_path: Path, sweep_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a sweep file given on the command line may name code."""
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    folder = sweep_folder(data_sets=("apples",), modes=("descending",), seeds=2, length=2)
    for path in folder.glob("runs/*/run.json"):
        record = json.loads(path.read_text())
        record["cell"]["mode"] = "evil_module:run"
        record["settings"]["stages"] = {"criterion": "evil_module:run"}
        record["settings"]["score"] = {"metrics": ["evil_module:run"]}
        record["settings"]["groups"] = {"by": "evil_module:run"}
        path.write_text(json.dumps(record))
    build.make(folder)
    assert "evil_module" not in sys.modules
    assert "evil" in (folder / "tables" / "tables.md").read_text()
