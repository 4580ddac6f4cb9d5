"""Runs, checks and people as tables."""
from __future__ import annotations

from datetime import datetime
from typing import Any

from ansible_collections.marketsage.rollback.wrapper.console import clock
from rich.console import Console
from rich.table import Table
from rich.text import Text

_STATES = {"done": "green", "aborted": "yellow", "superseded": "dim", "open": "bold yellow"}
_CHECKS = {"passed": ("✓", "green"), "failed": ("✗", "bold red"), "unknown": ("?", "yellow")}


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def show_list(runs: list[dict[str, Any]]) -> None:
    """Every run in two lines at most, newest first."""
    table = _table("run", "by", "how it ended", "took", "restored after")
    for run in runs:
        ended = Text(f"{run['state']}{' ' + str(run['exit_code']) if run['exit_code'] else ''}", _STATES[run["state"]])
        taken = f", taken over from {run['taken_over']['from']}" if run["taken_over"] else ""
        by = f"{run['owner']}{taken}{', approved by ' + run['approved_by'] if run['approved_by'] else ''}"
        restored = "" if run["restored_after"] is None else clock(run["restored_after"])
        table.add_row(run["run"], by, ended, took(run), restored)
        table.add_row(Text(f"  {run['severity']} {run['reason']}", "dim"))
    Console().print(table if runs else "There was no run yet.")


def show_months(months: list[dict[str, Any]]) -> None:
    """The time to restore by month, and how it has changed since the month before."""
    if not months:
        return
    table = _table("month", "runs", "median time to restore", "")
    for month, before in zip(months, [*months[1:], None], strict=True):
        change = "" if before is None else f"{month['median'] - before['median']:+.1f} s"
        table.add_row(month["month"], str(month["runs"]), clock(month["median"]), Text(change, "dim"))
    Console().print(table)


def took(run: dict[str, Any]) -> str:
    """From its opening to its end."""
    if not run["opened"] or not run["closed"]:
        return ""
    return clock((datetime.fromisoformat(run["closed"]) - datetime.fromisoformat(run["opened"])).total_seconds())


def show_run(run: dict[str, Any]) -> None:
    """One run: its plan, the seconds of its steps, and its journal."""
    console = Console()
    show_list([run])
    for service, part in run["plan"]["services"].items():
        before = ", ".join(release["release"] for release in part["from"])
        console.print(f"{service}: {before} -> {part['to']['release']} ({part['action']})", highlight=False)
    steps = _table("", "")
    for name, seconds in run["steps"].items():
        steps.add_row(name, clock(seconds))
    console.print(steps)
    journal = _table("time", "step", "", "")
    for entry in run["journal"]:
        journal.add_row(entry["time"][11:19], entry["step"], entry["kind"], entry["at"])
    console.print(journal)
    console.print(f"record: {run['directory']}", highlight=False, soft_wrap=True)


def show_checks(results: list[dict[str, Any]]) -> None:
    """Each check with what was seen; in a terminal that has one line where the check passed."""
    console = Console()
    width = max((len(result["name"]) for result in results), default=0)
    for result in results:
        sign, style = _CHECKS[result["status"]]
        line = Text.assemble((sign, style), f"  {result['name']:{width}}  ", (str(result["evidence"]), "dim"))
        if console.is_terminal and result["status"] == "passed":
            console.print(line, no_wrap=True, overflow="ellipsis")
        else:
            console.print(line, soft_wrap=True)


def show_people(people: dict[str, dict[str, Any]]) -> None:
    table = _table("", "", "phone", "Slack", "role")
    for login, about in people.items():
        table.add_row(*(about.get(key, "") for key in ("on_call", "name", "phone", "slack")), about.get("role", login))
    Console().print(table if people else "The inventory names nobody (rollback_people).")
