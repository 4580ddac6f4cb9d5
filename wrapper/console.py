"""What the operator sees: a live table in a terminal, plain lines elsewhere, JSON lines on request."""
from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ansible_collections.marketsage.rollback.wrapper.progress import Happening, Progress, Step
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

_SIGNS = {
    "waiting": ("·", "dim"),
    "running": ("▶", "bold cyan"),
    "done": ("✓", "green"),
    "skipped": ("-", "dim"),
    "failed": ("✗", "bold red"),
}


def clock(seconds: float) -> str:
    """Seconds as a tired person reads them: 7.4 s, 30 s, 4:05."""
    return f"{round(seconds, 1):g} s" if seconds < 60 else f"{int(seconds // 60)}:{int(seconds % 60):02d}"


class JsonLines:
    """Every happening as one line of JSON on standard output."""

    def __init__(self, _progress: Progress, _title: str, _response_time: int | None) -> None:
        self.live: AbstractContextManager[Any] = nullcontext()

    def tell(self, happening: Happening) -> None:
        print(json.dumps(happening), flush=True)


class PlainLines:
    """A line for each step and its end, for logs and pipes."""

    def __init__(self, progress: Progress, title: str, response_time: int | None) -> None:
        self.live: AbstractContextManager[Any] = nullcontext()
        limit = f", to be done within {clock(response_time)}" if response_time else ""
        print(f"{title}{limit}", flush=True)

    def tell(self, happening: Happening) -> None:
        for line in plain_lines(happening):
            print(line, flush=True)


def plain_lines(happening: Happening) -> Iterable[str]:
    """A happening in plain lines; most need none."""
    at = f"{happening['elapsed']:7.1f} s "
    kind = happening["event"]
    if kind == "plan":
        return [f"{at} {line}" for line in happening["summary"]] + [f"{at} plan {happening['hash'][:12]}"]
    if kind == "schema":
        return [f"{at} {line}" for line in schema_lines(happening)]
    if kind == "step_started":
        return [f"{at} > {happening['step']} (budget {clock(happening['budget'])})"]
    if kind == "step_finished":
        taken = "" if happening["status"] == "skipped" else f" in {clock(happening['seconds'])}"
        return [f"{at} {happening['status']}: {happening['step']}{taken}"]
    if kind == "checks":
        return [f"{at}   {line}" for line in check_lines(happening["host"], happening["results"])]
    return happening["lines"] if kind == "ended" else []


def schema_lines(schema: dict[str, Any]) -> list[str]:
    """What a schema rollback takes back, what it archives and the SQL, in the order in which it runs."""
    undone = [f"taken back: {migration}, by {source}" for migration, source in schema["undone"].items()]
    at_risk = [
        f"archived in {schema['archive']}: {each['rows']} rows of "
        f"{'.'.join(filter(None, (each['table'], each['column'])))} ({each['kind']})"
        for each in schema["at_risk"]
    ]
    return [*undone, *at_risk, *(f"  {' '.join(statement.split())};" for statement in schema["sql"])]


def check_lines(host: str, results: list[dict[str, Any]]) -> list[str]:
    """How many checks passed, and each that did not."""
    failed = [result for result in results if result["status"] != "passed"]
    counted = f"{host}: {len(results) - len(failed)} of {len(results)} checks passed"
    return [counted, *(f"{host}: {result['name']}: {result['evidence']}" for result in failed)]


class LiveTable:
    """The steps with their clocks against their budgets, redrawn while the run goes on."""

    def __init__(self, progress: Progress, title: str, response_time: int | None) -> None:
        self.console = Console()
        self.progress = progress
        self.title = title
        self.response_time = response_time
        self.live: AbstractContextManager[Any] = Live(
            get_renderable=self.render, console=self.console, refresh_per_second=8, transient=False
        )

    def tell(self, happening: Happening) -> None:
        if happening["event"] == "ended":
            for line in happening["lines"]:
                self.console.print(Text(line, style="bold green" if happening["exit_code"] == 0 else "bold red"))

    def render(self) -> Group:
        table = Table(box=None, padding=(0, 1), show_header=False)
        for step in self.progress.steps:
            table.add_row(*self._row(step))
        schema = schema_lines(self.progress.schema) if self.progress.schema else []
        plan = [Text(f"  {line}") for line in [*self.progress.plan.get("summary", []), *schema]]
        return Group(Text.from_markup(self._heading()), *plan, table)

    def _heading(self) -> str:
        total = clock(self.progress.elapsed())
        limit = f" of {clock(self.response_time)}" if self.response_time else ""
        return f"[bold]{escape(self.title)}[/bold]  {total}{limit}"

    def _row(self, step: Step) -> tuple[Text, Text, Text, Text]:
        sign, style = _SIGNS[step.status]
        seconds = self.progress.seconds_of(step)
        spent = "" if step.status in ("waiting", "skipped") else clock(seconds)
        over = "bold red" if seconds > step.budget else style
        detail = step.detail if step.status in ("running", "failed") else ""
        return (
            Text(sign, style=style),
            Text(step.name, style=style),
            Text(f"{spent:>7} / {clock(step.budget)}", style=over),
            Text(detail, style="dim", overflow="ellipsis", no_wrap=True),
        )


View = JsonLines | PlainLines | LiveTable


def view(progress: Progress, title: str, response_time: int | None, as_json: bool) -> View:
    """The way of showing that suits standard output."""
    if as_json:
        return JsonLines(progress, title, response_time)
    kind = LiveTable if sys.stdout.isatty() else PlainLines
    return kind(progress, title, response_time)
