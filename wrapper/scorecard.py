"""How a drill went: each step against its budget, the answers users got, the rows that were lost."""
from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.marketsage.rollback.wrapper.console import clock
from ansible_collections.marketsage.rollback.wrapper.progress import VERSION
from ansible_collections.marketsage.rollback.wrapper.scene import Scene
from rich.console import Console
from rich.table import Table
from rich.text import Text

_ANSWERS = {
    "good": "from a good release",
    "bad": "from the bad release",
    "maintenance": "the maintenance page",
    "error": "errors",
}


def score(result: dict[str, Any], runs: list[Scene], records: list[Path]) -> dict[str, Any]:
    """The drill's result with the steps of its runs, what was left to be done by hand, and where their records are."""
    return {
        "version": VERSION,
        "event": "score",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        **result,
        "by_hand": [duty for record in records for duty in _by_hand(record)],
        "steps": [
            {"step": step.name, "seconds": round(step.seconds, 2), "budget": step.budget, "status": step.status}
            for scene in runs
            for step in scene.steps
            if step.status not in ("waiting", "skipped")
        ],
        "records": [str(record) for record in records],
    }


def _by_hand(record: Path) -> list[str]:
    outcome = json.loads((record / "outcome.json").read_text()) if (record / "outcome.json").exists() else {}
    return [*outcome.get("undone", []), *outcome.get("left_to_do", [])]


# What drills are compared by: its name, how it is shown, and how it is read from a score (null where not known).
_FIGURES: dict[str, tuple[Callable[[Any], str], Callable[[dict[str, Any]], Any]]] = {
    "all steps": (clock, lambda score: sum(step["seconds"] for step in score["steps"])),
    "steps over budget": (str, lambda score: sum(step["seconds"] > step["budget"] for step in score["steps"])),
    "first page to first good answer": (clock, lambda score: _away(score.get("turning_points"))),
    "bad answers": (str, lambda score: score.get("answers", {}).get("bad")),
    "errors": (str, lambda score: score.get("answers", {}).get("error")),
    "rows lost": (str, lambda score: score.get("lost")),
    "severity and cause named after": (clock, lambda score: (score["assessed"] or {}).get("seconds")),
    "left to do by hand": (str, lambda score: len(score["by_hand"])),
}


def _away(turning: dict[str, Any] | None) -> float | None:
    if turning is None or turning["first_page"] is None or turning["first_good_after"] is None:
        return None
    return float(turning["first_good_after"] - turning["first_page"])


def figures(score: dict[str, Any]) -> dict[str, float | int | None]:
    """What a drill is compared by; seconds are rounded to tenths."""
    read = {name: value(score) for name, (_shown, value) in _FIGURES.items()}
    return {name: round(value, 1) if isinstance(value, float) else value for name, value in read.items()}


def _shown(name: str, value: Any) -> str:
    return "not known" if value is None else _FIGURES[name][0](value)


def comparison(score: dict[str, Any], last: dict[str, Any]) -> Table:
    """Each figure of this drill and of the last like it; less is better in all of them."""
    title = f"Against the last drill like it ({last['time'][:10]})"
    table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left")
    for column in ("", "this", "last", ""):
        table.add_column(column, justify="right" if column else "left")
    before = figures(last)
    for name, value in figures(score).items():
        table.add_row(name, _shown(name, value), _shown(name, before[name]), _change(value, before[name]))
    return table


def _change(now: float | None, before: float | None) -> Text:
    if now is None or before is None or now == before:
        return Text("")
    return Text("better", "green") if now < before else Text("worse", "bold red")


def show_history(scores: list[dict[str, Any]]) -> None:
    """Every drill in a line, newest first."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("held", "drill", "scenario", "exit", "steps", "bad", "errors", "lost"):
        table.add_column(column, justify="left" if column in ("held", "drill", "scenario") else "right")
    for score in scores:
        told = figures(score)
        numbers = [_shown(name, told[name]) for name in ("all steps", "bad answers", "errors", "rows lost")]
        held = score["time"][:16].replace("T", " ")
        table.add_row(held, score["kind"], score["scenario"], str(score["exit_code"]), *numbers)
    Console().print(table if scores else "No drill was held yet.")


def assessed_line(assessed: dict[str, Any] | None) -> Text:
    """Whether severity and cause were named rightly, and after how long."""
    if assessed is None:
        return Text("It was not assessed: there is no Prometheus.", "yellow")
    right = {True: "right", False: "wrong", None: "not known"}
    told = f"severity {assessed['severity']} ({right[assessed['severity_right']]})"
    cause = f"cause {', '.join(assessed['cause']) or 'not named'} ({right[assessed['cause_right']]})"
    style = "green" if assessed["severity_right"] and assessed["cause_right"] is not False else "bold red"
    return Text(f"{clock(assessed['seconds'])} until assessed: {told}, {cause}", style)


def show(score: dict[str, Any], last: dict[str, Any] | None) -> None:
    console = Console()
    console.print(assessed_line(score["assessed"]))
    console.print(steps_table(score["steps"]))
    if "answers" in score:
        _show_answers(score, console)
    else:
        console.print("Answers and rows were not counted there.")
    if "forward" in score:
        archived, lost = score["forward"]["archived"], score["forward"]["lost"]
        console.print(f"{archived:6d} values archived and brought back, {lost} lost", highlight=False)
    for duty in score["by_hand"]:
        console.print(f"by hand: {duty}", highlight=False, soft_wrap=True)
    console.print(comparison(score, last) if last else "It is the first drill of its kind with this scenario.")
    for record in score["records"]:
        console.print(f"record: {record}", highlight=False, soft_wrap=True)


def _show_answers(score: dict[str, Any], console: Console) -> None:
    for kind, meaning in _ANSWERS.items():
        console.print(f"{score['answers'][kind]:6d} answers: {meaning}", highlight=False)
    turning = score["turning_points"]
    away = _away(turning)
    if away is not None:
        late = {"bad": turning["bad_sent_after_page"], **turning["errors_sent_after_page"]}
        kinds = ", ".join(f"{kind} {count}" for kind, count in late.items() if count)
        console.print(
            f"{sum(late.values()):6d} bad answers or errors to requests sent after the page went up"
            f"{kinds and f' ({kinds})'}", highlight=False,
        )
        console.print(f"{clock(away):>6} from the first maintenance page to the first good answer", highlight=False)
    console.print(f"{score['acknowledged']:6d} rows acknowledged, {score['lost']} lost", highlight=False)


def steps_table(steps: list[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), title="Steps against their budgets", title_justify="left")
    for column, justify in (("step", "left"), ("took", "right"), ("budget", "right"), ("", "left")):
        table.add_column(column, justify="right" if justify == "right" else "left")
    for step in steps:
        within = "over budget" if step["seconds"] > step["budget"] else step["status"]
        table.add_row(step["step"], clock(step["seconds"]), clock(step["budget"]), within)
    return table
