"""Drills: what is broken is chosen, what was named is judged, and one is compared with the last like it."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.marketsage.rollback.sandbox import drill, layout, scenarios
from ansible_collections.marketsage.rollback.wrapper import scorecard
from ansible_collections.marketsage.rollback.wrapper.cli import main
from ansible_collections.marketsage.rollback.wrapper.commands import drilling
from ansible_collections.marketsage.rollback.wrapper.drill_history import DrillHistory
from click.testing import CliRunner
from rich.console import Console

BROKEN = {"severity": "P0", "deployed": {"backend": {"release": "b" * 12, "ref": "v2"}}}
EXCEEDED = [{"exceeded": True}]
CAUSE = [{"service": "backend", "commit": "b" * 12, "ref": "v2"}]
SCORE: dict[str, Any] = {
    "time": "2026-11-24T03:15:00+00:00", "kind": "backend", "scenario": "backend-500", "exit_code": 0,
    "steps": [{"step": "Verify health", "seconds": 70.0, "budget": 60, "status": "done"}],
    "answers": {"good": 5, "bad": 3, "maintenance": 2, "error": 0}, "lost": 0, "acknowledged": 4, "by_hand": [],
    "turning_points": {
        "first_page": 10.0, "first_good_after": 22.5, "bad_sent_after_page": 1,
        "errors_sent_after_page": {"timeout": 2}},
    "assessed": {
        "seconds": 9.0, "severity": "P0", "severity_right": True, "cause": ["v2"], "cause_right": True},
    "records": ["/drills/x"],
}  # fmt: skip


def shown(table: Any) -> str:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


@pytest.mark.parametrize("kind", drill.DRILLS)
def test_every_scenario_of_a_drill_can_be_broken(kind: str) -> None:
    assert set(drill.DRILLS[kind].scenarios) <= set(scenarios.all_scenarios())


def test_the_usual_is_broken_unless_another_fitting_one_is_named_or_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    fitting = ("one", "two")
    assert drilling._scenario(fitting, None, False) == "one"
    assert drilling._scenario(fitting, "two", False) == "two"
    assert {drilling._scenario(fitting, None, True) for _time in range(100)} == {"one", "two"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["backend", "--scenario", "admin-middleware"], "'admin-middleware' is not one of backend-500"),
        (["backend", "--scenario", "backend-500", "--random"], "either name one or say --random"),
        (["backend", "-i", "/", "--random"], "inventory: it says what is broken; leave --scenario, --random"),
        (["backend", "-i", "/"], "there is no terminal to ask at; a drill breaks something on purpose: say --yes"),
        (["mainframe"], "kind: 'mainframe' is not one of backend, frontend, full-system, database, history"),
    ],
)
def test_a_drill_that_cannot_be_held_is_bad_input(words: list[str], said: str) -> None:
    refused = CliRunner().invoke(main, ["drill", *words])
    assert (refused.exit_code, said in " ".join(refused.output.split())) == (2, True), refused.output


def test_a_drill_whose_score_cannot_be_kept_breaks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "default_directory", lambda: tmp_path / "sandbox")
    (tmp_path / "drills").touch()
    refused = CliRunner().invoke(main, ["drill", "backend"])
    assert refused.exit_code == 1 and f"drills are kept in {tmp_path}/drills: File exists" in refused.output
    assert not (tmp_path / "drill").exists()


def assessed(monkeypatch: pytest.MonkeyPatch, *answers: dict[str, Any]) -> dict[str, Any]:
    """What is made of assessments that follow each other twenty seconds apart."""
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(drill.time, "monotonic", lambda: next(clock))
    told = iter([*answers, *[answers[-1]] * 10])
    hands = drill.Hands(lambda: next(told), lambda *_: (0, ""), lambda _line: None)
    return drill.await_assessment(BROKEN, hands)


def test_it_waits_until_severity_and_cause_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {"severity": "P0", "measured": EXCEEDED, "cause": CAUSE}
    result = assessed(monkeypatch, {"severity": None, "measured": [], "cause": []}, {**named, "cause": []}, named)
    assert (result["severity_right"], result["cause"], result["cause_right"], result["seconds"]) == (
        True, ["v2"], True, 60.0,
    )  # fmt: skip


def test_a_wrong_severity_or_cause_is_scored_as_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    other = [{"service": "frontend", "commit": "f" * 12, "ref": "v9"}]
    result = assessed(monkeypatch, {"severity": "P2", "measured": EXCEEDED, "cause": other})
    assert (result["severity_right"], result["cause_right"]) == (False, False)
    assert "wrong" in scorecard.assessed_line(result).plain


def test_where_no_trigger_dates_it_the_cause_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    result = assessed(monkeypatch, {"severity": "P0", "measured": [{"exceeded": False}], "cause": []})
    assert (result["severity_right"], result["cause_right"], result["seconds"]) == (True, None, 20.0)
    failed = assessed(monkeypatch, {})
    assert (failed["severity_right"], failed["cause_right"]) == (False, None)


def test_the_last_of_its_kind_and_scenario_is_what_it_is_compared_with(tmp_path: Path) -> None:
    history = DrillHistory(tmp_path / "drills")
    history.prepare()
    assert (history.all(), history.last("backend", "backend-500")) == ([], None)
    for seconds, scenario in ((50.0, "backend-500"), (70.0, "backend-500"), (1.0, "auth")):
        history.keep({**SCORE, "scenario": scenario, "steps": [{**SCORE["steps"][0], "seconds": seconds}]})
    assert [score["scenario"] for score in history.all()] == ["auth", "backend-500", "backend-500"]
    last = history.last("backend", "backend-500")
    assert last and scorecard.figures(last)["all steps"] == 70.0


def test_each_figure_is_better_worse_or_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    last = {**SCORE, "answers": {**SCORE["answers"], "bad": 9}, "lost": 0, "assessed": None}
    now = {**SCORE, "steps": [{**SCORE["steps"][0], "seconds": 90.0}]}
    lines = {line.split("  ")[0].strip(): line.split() for line in shown(scorecard.comparison(now, last)).splitlines()}
    assert lines["bad answers"][-1] == "better"
    assert lines["all steps"][-1] == "worse"
    assert lines["rows lost"][-1] == "0"
    assert lines["severity and cause named after"][-2:] == ["not", "known"]
    scorecard.show(now, None)
    told = " ".join(capsys.readouterr().out.split())
    assert "the first drill of its kind" in told
    assert "3 bad answers or errors to requests sent after the page went up (bad 1, timeout 2)" in told


def test_the_history_is_shown_and_printed_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "default_directory", lambda: tmp_path / "sandbox")
    assert "No drill was held yet." in CliRunner().invoke(main, ["drill", "history"]).output
    history = DrillHistory(tmp_path / "drills")
    history.prepare()
    history.keep(SCORE)
    told = json.loads(CliRunner().invoke(main, ["drill", "history", "--json"]).output)
    assert (told["version"], told["drills"]) == (1, [SCORE])
    assert "backend-500" in CliRunner().invoke(main, ["drill", "history"]).output


def test_what_was_left_to_a_human_is_part_of_the_score(tmp_path: Path) -> None:
    (tmp_path / "outcome.json").write_text(json.dumps({"undone": ["switch on"], "left_to_do": ["rotate"]}))
    assert scorecard.score({"exit_code": 0}, [], [tmp_path])["by_hand"] == ["switch on", "rotate"]
