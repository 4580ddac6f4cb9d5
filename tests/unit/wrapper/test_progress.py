"""What the operator is shown, from ansible-runner's events as they come."""
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.marketsage.rollback.wrapper import console, policy
from ansible_collections.marketsage.rollback.wrapper.progress import Progress
from ansible_collections.marketsage.rollback.wrapper.scene import Scene
from rich.console import Console


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> Progress:
    return Progress({"Read": 30, "Act": 60, "Close": 10}, clock)


def play(progress: Progress, name: str) -> list[dict[str, Any]]:
    return list(progress.take({"event": "playbook_on_play_start", "event_data": {"name": name}}))


def task(progress: Progress, kind: str = "ok", **values: Any) -> list[dict[str, Any]]:
    data = {"host": "api-1", "task": "a task", "res": values}
    return list(progress.take({"event": f"runner_on_{kind}", "event_data": data}))


def test_a_step_runs_from_its_play_to_the_next(progress: Progress, clock: Clock) -> None:
    assert play(progress, "Read")[0]["event"] == "step_started"
    task(progress)
    clock.now += 2
    finished, started = play(progress, "Act")
    assert (finished["step"], finished["status"], finished["seconds"], finished["budget"]) == ("Read", "done", 2, 30)
    assert (started["step"], started["version"]) == ("Act", 1)


def test_a_step_that_had_nothing_to_do_is_not_called_done(progress: Progress) -> None:
    play(progress, "Read")
    assert play(progress, "Act")[0]["status"] == "skipped"


def test_two_plays_of_one_name_are_one_step(progress: Progress) -> None:
    play(progress, "Read")
    assert play(progress, "Read") == []


def test_a_failure_marks_its_step_and_the_ending(progress: Progress) -> None:
    play(progress, "Act")
    task(progress, "failed", msg="health answered 500", exit_code=5)
    play(progress, "Close")
    assert progress.steps[1].status == "failed"
    ended = progress.ended(5)
    assert (ended["exit_code"], ended["lines"]) == (5, ["UNHEALTHY: api-1: health answered 500"])


def test_the_plan_and_the_checks_are_told(progress: Progress) -> None:
    told = task(progress, plan={}, summary=["one line"], hash="abc", pinned=False, estimates={"Act": 4.2})
    assert (told[0]["event"], told[0]["summary"]) == ("plan", ["one line"])
    failed = {"name": "health", "status": "failed", "evidence": "answered 500"}
    checks = task(progress, "failed", msg="x", results=[failed], passes=0, passed=False)[0]
    assert list(console.plain_lines(checks))[1].endswith("api-1: health: answered 500")


def test_a_step_that_waits_shows_how_long_it_took_before(progress: Progress) -> None:
    scene = Scene()
    scene.take(progress.started("Backend", 300))
    for happening in task(progress, plan={}, summary=[], hash="abc", pinned=False, estimates={"Act": 4.2}):
        scene.take(happening)
    screen = Console(record=True, width=80)
    screen.print(console.LiveTable(scene, {}, screen).render())
    lines = screen.export_text().splitlines()
    assert any("Act" in line and "~4 s / 1:00" in line for line in lines)


def test_the_batch_that_is_rolled_back_is_told_and_shown_beside_what_is_awaited(progress: Progress) -> None:
    batch = {"hosts": ["api-2", "api-3"], "number": 2, "of": 3}
    told = task(progress, batch=batch)[0]
    assert next(iter(console.plain_lines(told))).endswith("batch 2 of 3: api-2, api-3")
    scene = Scene()
    for happening in (progress.started("Backend", None), *play(progress, "Act"), told):
        scene.take(happening)
    assert scene.batch == "batch 2 of 3: api-2, api-3"
    for happening in play(progress, "Close"):
        scene.take(happening)
    assert scene.batch == ""


def test_what_a_schema_rollback_would_do_is_told_once(progress: Progress) -> None:
    at_risk = [{"kind": "column", "table": "public.Contact", "column": "phone", "rows": 3}]
    worked_out = {"undone": {"2_phone": "inverse"}, "sql": ["ALTER\n  TABLE x"], "archive": "rollback_1"}
    told = task(progress, **worked_out, at_risk=at_risk)[0]
    assert list(console.plain_lines({**told, "elapsed": 0})) == [
        "    0.0 s  taken back: 2_phone, by inverse",
        "    0.0 s  archived in rollback_1: 3 rows of public.Contact.phone (column)",
        "    0.0 s    ALTER TABLE x;",
    ]
    assert "schema" not in [happening["event"] for happening in task(progress, **worked_out, at_risk=[])]


def test_every_step_of_every_procedure_has_a_budget() -> None:
    for name in policy.procedures():
        named = set(policy.steps(policy.playbook(name)))
        assert named <= set(policy.budgets())
        assert {"Read what is live", "Close the run"} <= named
        # A backup is nothing that users could meet.
        assert "Verify health" in named or name == "backup"


@pytest.mark.parametrize(("seconds", "shown"), [(0.04, "0 s"), (7.44, "7.4 s"), (30, "30 s"), (245, "4:05")])
def test_seconds_are_shown_as_a_tired_person_reads_them(seconds: float, shown: str) -> None:
    assert console.clock(seconds) == shown


MEASURE = {
    "name": "Error rate", "unit": "%", "limit": 5, "above": 5, "baseline": 0.2, "bound": 0.8, "value": 1, "latest": 1.5,
    "trend": [0, 0.5, 1, 1.5], "verdict": "worse", "problem": "",
}  # fmt: skip


def test_a_watch_is_told_each_time_it_has_looked_and_once_judged(progress: Progress) -> None:
    watch = {"run": "x", "measures": [MEASURE]}
    retried = {"event": "runner_retry", "event_data": {"host": "localhost", "res": {"watch": watch}}}
    (looked,) = progress.take(retried)
    assert (looked["event"], looked["measures"]) == ("watched", [MEASURE])
    assert console.plain_lines(looked)[0].endswith("1 worse; worse: Error rate: 1 % (before 0.2, at most 0.8, SLA 5)")
    criteria = [{"name": "Error rates below baseline", "answer": "no", "evidence": "Error rate: 1 %"}]
    told = task(progress, "failed", watch=watch, verdict="worse", criteria=criteria, exit_code=5, msg="worse")
    judged = next(one for one in told if one["event"] == "judged")
    assert judged["verdict"] == "worse"
    assert console.plain_lines(judged)[-1].endswith("no      Error rates below baseline: Error rate: 1 %")
    assert progress.ended(5)["lines"][0] == "UNHEALTHY: api-1: worse"


@pytest.mark.parametrize(("values", "bars"), [([0, 1, 2, 4, 8], "▁▂▃▅█"), ([0, 0], "▁▁"), ([], ""), ([3], "█")])
def test_the_trend_is_drawn_to_its_highest_value(values: list[float], bars: str) -> None:
    assert console.spark(values) == bars
