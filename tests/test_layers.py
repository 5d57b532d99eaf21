"""Imports point down: a package imports itself and packages of lower layers only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS: list[set[str]] = [  # from the bottom
    {"featgan"},
    {"harness.storage"},
    {"harness.sources", "harness.display"},
    {"harness.plan", "harness.records"},
    {"harness.cluster", "harness.report"},
    {"harness.counting", "harness.runs"},
    {"harness.preparation", "harness.cli"},
    {"harness.sweep", "harness.features", "harness.results"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
NO_RAY = {"featgan", "harness.storage", "harness.sources", "harness.display", "harness.plan"}
NO_RAY |= {"harness.records", "harness.report"}
HEAVY = ("torch", "torchvision", "sklearn", "scipy", "pandas", "pyarrow", "matplotlib", "ray")
MOST_MODULES, MOST_LINES = 12, 400

FILES = sorted([*ROOT.glob("featgan/**/*.py"), *ROOT.glob("harness/**/*.py")])
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}


def package(module: str) -> str:
    """Return the package that a module belongs to, as named in `LAYERS`."""
    return ".".join(module.split(".")[: 1 if module.startswith("featgan") else 2])


def imports() -> set[tuple[str, str]]:
    """Return each import as (importing module, imported module), also those inside functions."""
    found = set()
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {(module, alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.module, f"{module}: a relative import"
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    found.add((module, inner if inner in MODULES else node.module))
    return found


def test_every_package_has_a_layer() -> None:
    assert {package(module) for module in MODULES} - {"harness.__init__"} == {*LEVEL}


def test_imports_point_down() -> None:
    wrong = [
        f"{a} imports {b}"
        for a, b in sorted(imports())
        if package(a) in LEVEL and package(b) in LEVEL and package(a) != package(b)
        if LEVEL[package(b)] >= LEVEL[package(a)]
    ]
    assert not wrong


def test_the_method_does_not_import_the_harness() -> None:
    wrong = [f"{a} imports {b}" for a, b in sorted(imports()) if package(a) == "featgan"]
    assert not [line for line in wrong if " imports harness" in line]


def test_the_method_the_plan_and_the_report_import_no_ray() -> None:
    used = {(a, b.partition(".")[0]) for a, b in imports() if package(a) in NO_RAY}
    assert not sorted(a for a, b in used if b == "ray")


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    arrows = {(a, b) for a, b in imports() if b in MODULES}
    while arrows:  # leave out imports from modules that nothing imports, or of modules without any
        importing, imported = {a for a, _ in arrows}, {b for _, b in arrows}
        kept = {(a, b) for a, b in arrows if a in imported and b in importing}
        if kept == arrows:
            break
        arrows = kept
    assert not sorted(arrows)


@pytest.mark.parametrize("module", ["harness.plan.load", "harness.sweep", "harness.results"])
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_folders_and_files_stay_small() -> None:
    folders: dict[str, int] = {}
    for path in FILES:
        folder = str(path.parent.relative_to(ROOT))
        folders[folder] = folders.get(folder, 0) + (path.name != "__init__.py")
    assert {folder: n for folder, n in folders.items() if n > MOST_MODULES} == {}
    lines = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert {module: n for module, n in lines.items() if n > MOST_LINES} == {}
