import io

import pytest

from harness import screen as module
from harness.screen import Counts, Screen


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr(module.time, "monotonic", lambda: Clock.now)
    return Clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_terminal_lines_come_at_a_sane_rate(clock):
    out = io.StringIO()
    screen = Screen(out)
    for second in range(25):
        clock.now = 100.0 + second
        screen.features("apples", 10 * second, 1000)
    lines = out.getvalue().splitlines()
    assert lines == [
        "apples: 0 of 1,000 images",
        "apples: 100 of 1,000 images, 0:01:30 left",
        "apples: 200 of 1,000 images, 0:01:20 left",
    ]


def test_time_left_of_a_continued_count_is_reckoned_from_where_it_went_on(clock):
    out = io.StringIO()
    screen = Screen(out)
    screen.features("apples", 800, 1000)
    clock.now += 10
    screen.features("apples", 900, 1000)
    assert out.getvalue().splitlines()[-1] == "apples: 900 of 1,000 images, 0:00:10 left"


def test_runs_show_what_is_done_failed_left_and_best(clock):
    out = io.StringIO()
    screen = Screen(out)
    screen.begin()
    clock.now += 60
    counts = Counts(total=18, done=3, failed=1, running=2, share=0.25, best="2.5 (a; IS x)")
    screen.runs(counts)
    assert out.getvalue() == (
        "runs: 3 of 18 done, 2 running, 1 failed, 0:03:00 left, best 2.5 (a; IS x)\n"
    )


def test_on_a_terminal_one_line_is_overwritten_and_what_stays_is_clear_of_it(clock):
    out = Terminal()
    screen = Screen(out)
    screen.features("apples", 0, 10)
    clock.now += 1
    screen.features("apples", 5, 10)
    screen.say("done")
    assert out.getvalue().split("\r")[1] == "apples: 0 of 10 images"
    assert out.getvalue().endswith("\rdone\n")
