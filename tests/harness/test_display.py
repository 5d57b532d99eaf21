import io

import pyte
import pytest
from ray import cloudpickle

from harness import display as module
from harness.display import Counts, Progress, Screen, duration


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
    for second in range(75):
        clock.now = 100.0 + second
        screen.features("apples", 10 * second, 1000)
    screen.features("digits", 0, 1000)  # other work is shown at once
    assert out.getvalue().splitlines() == [
        "apples: 0 of 1,000 images",
        "apples: 300 of 1,000 images, 70 s left",
        "apples: 600 of 1,000 images, 40 s left",
        "digits: 0 of 1,000 images",
    ]


def test_without_a_terminal_no_line_comes_twice(clock):
    out = io.StringIO()
    screen, counts = Screen(out), Counts(total=6, done=1, running={"a": Progress()})
    for _ in range(3):
        clock.now += 60
        screen.runs(counts)
    counts.done = 2
    screen.runs(counts, last=True)  # a moment later
    clock.now += 60
    screen.runs(counts)
    assert out.getvalue().splitlines() == [
        "runs: 1 of 6 done, 1 running",
        "runs: 2 of 6 done, 1 running",
    ]


def test_durations_have_their_largest_unit():
    seconds = (0.4, 89, 90, 250, 5399, 5400, 360_000)
    found = [duration(number) for number in seconds]
    assert found == ["0 s", "89 s", "2 min", "4 min", "90 min", "1.5 h", "100.0 h"]


def test_time_left_of_a_continued_count_starts_where_it_went_on(clock):
    out = io.StringIO()
    screen = Screen(out)
    screen.features("apples", 800, 1000)
    clock.now += 30
    screen.features("apples", 900, 1000)
    assert out.getvalue().splitlines()[-1] == "apples: 900 of 1,000 images, 30 s left"


def test_runs_show_what_is_done_failed_left_and_best(clock):
    out = io.StringIO()
    screen = Screen(out)
    screen.begin()
    clock.now += 60
    running = {"a": Progress(), "b": Progress(0.5, 2.5, "node1")}
    counts = Counts(total=18, done=3, failed=1, running=running, share=0.25, best="2.5 (a; IS x)")
    screen.runs(counts)
    assert out.getvalue() == (
        "runs: 3 of 18 done, 2 running, 1 failed, 3 min left, best 2.5 (a; IS x)\n"
    )


def shown(terminal: Terminal) -> list[str]:
    """What a terminal of 80 columns shows after all that was written to it."""
    screen = pyte.Screen(80, 24)
    pyte.Stream(screen).feed(terminal.getvalue().replace("\n", "\r\n"))
    return [line.rstrip() for line in screen.display if line.strip()]


@pytest.fixture
def terminal(monkeypatch):
    for name, value in {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    return Terminal()


def test_a_terminal_shows_the_latest_below_what_stays(clock, terminal):
    screen = Screen(terminal)
    screen.features("apples", 0, 10)
    clock.now += 1
    screen.features("apples", 5, 10)
    screen.say("a [red] :smile: line that stays")
    assert shown(terminal) == [
        "a [red] :smile: line that stays",
        "apples: 5 of 10 images, 1 s left",
    ]
    screen.end()
    print("and the tables", file=terminal)
    assert shown(terminal)[-2:] == ["apples: 5 of 10 images, 1 s left", "and the tables"]


def test_a_terminal_shows_a_row_for_each_run_under_way(clock, terminal):
    screen = Screen(terminal)
    running = {"digits-b": Progress(), "digits-a": Progress(0.5, 2.5, "node1")}
    screen.runs(Counts(total=6, done=1, running=running))
    assert shown(terminal) == [
        "runs: 1 of 6 done, 2 running",
        "run under way  done  best score  on",
        "digits-a        50%       2.500  node1",
        "digits-b         0%",
    ]
    del running["digits-b"]
    clock.now += 1
    screen.runs(Counts(total=6, done=2, running=running))
    assert [line.split()[0] for line in shown(terminal)] == ["runs:", "run", "digits-a"]


def test_tune_may_pickle_what_is_live(clock, terminal):
    screen = Screen(terminal)
    screen.features("apples", 0, 10)
    cloudpickle.dumps(screen)
    screen.say("and it goes on")
    assert shown(terminal)[0] == "and it goes on"


def test_more_runs_than_a_terminal_has_lines_hide_no_summary(clock, terminal):
    screen = Screen(terminal)
    running = {f"run-{i:02d}": Progress() for i in range(40)}
    screen.runs(Counts(total=40, running=running))
    assert len(shown(terminal)) <= 24
    assert shown(terminal)[0] == "runs: 0 of 40 done, 40 running"


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(clock, terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    Screen(terminal).runs(Counts(total=6, running={"a": Progress()}))
    assert terminal.getvalue() == "runs: 0 of 6 done, 1 running\n"


def test_what_runs_wait_for_is_said_while_none_is_running(clock):
    out = io.StringIO()
    screen, counts = Screen(out), Counts(total=3, done=1)
    screen.runs(counts)
    clock.now += 30
    counts.waiting = lambda: "waiting for a node"
    screen.runs(counts)
    clock.now += 30
    counts.running["a"] = Progress()
    screen.runs(counts)
    assert out.getvalue().splitlines() == [
        "runs: 1 of 3 done, none running",
        "runs: 1 of 3 done, none running: waiting for a node",
        "runs: 1 of 3 done, 1 running",
    ]
