"""The report: self-contained, escaped, and clear about what is missing."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from PIL import Image

from harness.records.sweep_results import SweepResults
from harness.report import build, html

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Collects links, images and text; insists that every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.links, self.ids, self.text = [], [], [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.sources += [values[key] for key in ("src", "srcset", "data") if key in values]
        self.links += [values[key] for key in ("href",) if key in values]
        self.ids += [values["id"]] if "id" in values else []
        assert tag != "script"
        if tag == "img":
            assert values["alt"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def page(sweep_folder):
    def make(**options):
        folder = sweep_folder(length=2, seeds=1, **options)
        build.make(folder)
        return Page((folder / "report.html").read_text())

    return make


def test_everything_is_inline(page):
    found = page(data_sets=("apples",))
    assert all(source.startswith("data:image/") for source in found.sources)
    assert all(link.startswith("#") and link[1:] in found.ids for link in found.links)
    assert "url(" not in found.text  # the style sheet loads nothing
    # seeds, figure 9, samples, curves; grids at the peaks of 3 + 3 + 1 stages
    assert len(found.sources) == 4 + 7
    for source in found.sources:
        data = base64.b64decode(source.partition(",")[2])
        with Image.open(io.BytesIO(data)) as picture:
            assert max(picture.size) > 100


def test_labels_are_escaped(page):
    found = page(data_sets=("<b>&apples",))
    assert "<b>&apples: every run" in found.text  # as text, not as an element


def test_sections_and_words(page):
    text = page(data_sets=("apples",)).text
    for heading in (
        "What this sweep says", "Feature groups", "Epochs and scores",
        "How far to trust the scores",
        "The claims in numbers", "Every run", "Samples at each peak", "Rejected images",
        "Protocols, versions and cost", "Settings and data sets", "What the words mean",
    ):  # fmt: skip
        assert heading in text
    assert "bad/<b>1</b>.jpg" in text  # a rejected image
    assert "torch 2.14.1" in text
    assert re.search(r"Stage 3, groups 3, 2, 1: epoch \d+ of 20, score", text)


def test_without_rewinds_a_grid_is_of_its_stages_end(sweep_folder, make_run, save_run):
    folder = sweep_folder(data_sets=("a",), seeds=1, length=2)
    for path in folder.glob("runs/a-ascending-*/run.json"):
        shutil.rmtree(path.parent)
    cell = {"data": "a", "mode": "ascending", "seed": 0}
    run = make_run(cell, [[3.0, 1.5], [4.0, 2.0]], [[1], [1, 2]], images=[1, 2])
    settings = run.settings | {"stages": {"rewind": False}}
    save_run(folder, run.model_copy(update={"settings": settings}))
    build.make(folder)
    text = Page((folder / "report.html").read_text()).text
    assert "Stage 1, groups 1: at its end, epoch 20, score 1.500" in text
    assert "Stage 2, groups 1, 2: epoch 10 of 20, score 4.000" in text


def test_runs_not_begun_or_failed_are_named(sweep_folder, make_run, save_run):
    folder = sweep_folder(data_sets=("a",), seeds=1, length=2)
    for path in folder.glob("runs/a-conventional-*/run.json"):
        path.unlink()
    cell = {"data": "a", "mode": "random", "seed": 0}
    save_run(folder, make_run(cell, [[1.0]], [[1]], images=[1], status="failed", reason="no disk"))
    plan = json.loads((folder / "sweep.json").read_text())
    plan["cells"].append(cell)
    (folder / "sweep.json").write_text(json.dumps(plan))
    build.make(folder)
    text = Page((folder / "report.html").read_text()).text
    assert "2 of 4 runs finished." in text
    assert "Not begun: a-conventional-seed0." in text
    assert "failed: no disk" in text


def test_large_grids_are_shrunk(tmp_path):
    Image.new("RGB", (2000, 1000)).save(tmp_path / "large.png")
    with Image.open(io.BytesIO(html._shrunk(tmp_path / "large.png"))) as small:
        assert small.size == (html.PEAK_PIXELS, html.PEAK_PIXELS // 2)


def test_settings_come_last_and_changed_ones_first(sweep_folder):
    folder = sweep_folder(data_sets=("apples",), seeds=1, length=2)
    for path in folder.glob("runs/*/run.json"):
        record = json.loads(path.read_text())
        record["settings"] = {
            "image_size": 128,
            "gan": {"width": 16},
            "score": {"trained_on": ["apples", "digits"]},
        }
        path.write_text(json.dumps(record))
    settings, data = html._set_up(SweepResults(folder))
    assert settings.rows == [
        ["data", "apples", None],
        ["mode", "descending / ascending / conventional", None],
        ["seed", "0", None],
        ["gan.width", "16", "64"],
        ["score.trained_on", "apples, digits", "null"],
        ["image_size", "128", "128"],
    ]
    assert data.rows[0][:2] == ["apples", "source builtin, set apples"]
    build.make(folder)
    page = (folder / "report.html").read_text()
    assert page.index("<details>") > page.index("Every run") > 0
    assert page.rindex("<h2>") > page.index("<h2>Settings and data sets</h2></summary>")


def test_the_sweeps_own_classifier_has_a_name_that_readers_know(page):
    text = page(data_sets=("apples",)).text
    assert "IS small CNN of this sweep (0a1b) n=1000 splits=10 fp32" in text
