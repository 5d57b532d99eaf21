"""The report in a real browser: nothing is wider than the screen, on a desk and on a telephone."""

import json
import re
import shutil
import subprocess

import pytest

from harness.report import build

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
MEASURE = """<!doctype html><meta charset="utf-8"><body><script>
const found = {};
for (const width of [1280, 390]) {
  const frame = document.createElement("iframe");
  frame.style = `width: ${width}px; height: 900px; border: 0`;
  frame.src = "report.html";
  frame.onload = () => {
    const page = frame.contentDocument;
    page.querySelectorAll("details").forEach(part => part.open = true);
    const wide = [...page.body.querySelectorAll("*")].filter(part =>
      part.getBoundingClientRect().right > width + 0.5 && !part.parentElement.closest(".scroll"));
    const names = wide.map(part => part.tagName + " " + part.className);
    found[width] = [page.documentElement.scrollWidth, ...names];
    document.title = JSON.stringify(found);
  };
  document.body.append(frame);
}
</script>"""
"""A page that shows the report in two widths; its title becomes what is wider than they are."""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("long", [False, True])
def test_nothing_is_wider_than_the_screen(sweep_folder, long):
    name, axes = "apples", ({},)
    if long:
        name = "a_data_set_with_the_longest_name_that_a_sweep_file_lets_one_have"
        by = "a_module_of_the_user:a_function_with_a_long_name"
        axes = ({"groups.by": by, "groups.k": 2}, {"groups.by": by, "groups.k": 4})
    folder = sweep_folder(data_sets=(name,), axes=axes, length=2)
    build.make(folder)
    (folder / "measure.html").write_text(MEASURE)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    options += ["--allow-file-access-from-files", "--virtual-time-budget=20000", "--dump-dom"]
    command = [BROWSER, *options, f"--user-data-dir={folder / 'browser'}"]
    command += [(folder / "measure.html").as_uri()]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = json.loads(re.search("<title>(.*)</title>", page)[1])
    assert found == {"1280": [1280], "390": [390]}
