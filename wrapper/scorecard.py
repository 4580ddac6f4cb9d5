"""How a drill went: each step against its budget, the answers users got, the rows that were lost."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.marketsage.rollback.wrapper.console import clock
from ansible_collections.marketsage.rollback.wrapper.progress import VERSION
from ansible_collections.marketsage.rollback.wrapper.scene import Scene
from rich.console import Console
from rich.table import Table

_ANSWERS = {
    "good": "from a good release",
    "bad": "from the bad release",
    "maintenance": "the maintenance page",
    "error": "errors",
}


def score(result: dict[str, Any], runs: list[Scene], records: list[Path]) -> dict[str, Any]:
    """The drill's result with the steps of its runs, and where their records are."""
    return {
        "version": VERSION,
        "event": "score",
        **result,
        "steps": [
            {"step": step.name, "seconds": round(step.seconds, 2), "budget": step.budget, "status": step.status}
            for scene in runs
            for step in scene.steps
            if step.status not in ("waiting", "skipped")
        ],
        "records": [str(record) for record in records],
    }


def show(score: dict[str, Any]) -> None:
    console = Console()
    console.print(steps_table(score["steps"]))
    for kind, meaning in _ANSWERS.items():
        console.print(f"{score['answers'][kind]:6d} answers: {meaning}", highlight=False)
    turning = score["turning_points"]
    if turning["first_page"] and turning["first_good_after"]:
        away = turning["first_good_after"] - turning["first_page"]
        late = turning["bad_sent_after_page"] + turning["errors_sent_after_page"]
        console.print(f"{late:6d} bad answers or errors to requests sent after the page went up", highlight=False)
        console.print(f"{clock(away):>6} from the first maintenance page to the first good answer", highlight=False)
    console.print(f"{score['acknowledged']:6d} rows acknowledged, {score['lost']} lost", highlight=False)
    if "forward" in score:
        archived, lost = score["forward"]["archived"], score["forward"]["lost"]
        console.print(f"{archived:6d} values archived and brought back, {lost} lost", highlight=False)
    for record in score["records"]:
        console.print(f"record: {record}", highlight=False, soft_wrap=True)


def steps_table(steps: list[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), title="Steps against their budgets", title_justify="left")
    for column, justify in (("step", "left"), ("took", "right"), ("budget", "right"), ("", "left")):
        table.add_column(column, justify="right" if justify == "right" else "left")
    for step in steps:
        within = "over budget" if step["seconds"] > step["budget"] else step["status"]
        table.add_row(step["step"], clock(step["seconds"]), clock(step["budget"]), within)
    return table
