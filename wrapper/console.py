"""What the operator sees: a live table in a terminal, plain lines elsewhere, JSON lines on request."""
from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import criteria, watching
from ansible_collections.marketsage.rollback.wrapper.progress import Happening, Step
from ansible_collections.marketsage.rollback.wrapper.scene import Scene, batch_line
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

_SIGNS = {
    "waiting": ("·", "dim"),
    "running": ("▶", "bold cyan"),
    "done": ("✓", "green"),
    "skipped": ("-", "dim"),
    "failed": ("✗", "bold red"),
}
_VERDICTS = {"better": ("✓", "green"), "worse": ("✗", "bold red"), "unknown": ("?", "yellow")}
_ANSWERS = {"yes": ("✓", "green"), "no": ("✗", "bold red"), "unknown": ("?", "yellow")}
_BARS = "▁▂▃▄▅▆▇█"
_TREND = 14


def clock(seconds: float) -> str:
    """Seconds as a tired person reads them: 7.4 s, 30 s, 4:05."""
    return f"{round(seconds, 1):g} s" if seconds < 60 else f"{int(seconds // 60)}:{int(seconds % 60):02d}"


class JsonLines:
    """Every happening as one line of JSON on standard output."""

    live: AbstractContextManager[Any] = nullcontext()

    def tell(self, happening: Happening) -> None:
        print(json.dumps(happening), flush=True)

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class PlainLines:
    """A line for each step and its end, for logs and pipes."""

    live: AbstractContextManager[Any] = nullcontext()

    def tell(self, happening: Happening) -> None:
        for line in plain_lines(happening):
            self.say(line)

    def say(self, line: str) -> None:
        print(line, flush=True)


def plain_lines(happening: Happening) -> list[str]:
    """A happening in plain lines; most need none."""
    say = _SAYINGS.get(happening["event"])
    at = f"{happening['elapsed']:7.1f} s "
    lines = say(happening) if say else []
    return lines if happening["event"] in ("started", "ended") else [f"{at} {line}" for line in lines]


def _started(told: Happening) -> list[str]:
    return [f"{told['title']}{', to be done within ' + clock(told['response_time']) if told['response_time'] else ''}"]


def _step_finished(told: Happening) -> list[str]:
    taken = "" if told["status"] == "skipped" else f" in {clock(told['seconds'])}"
    return [f"{told['status']}: {told['step']}{taken}"]


def _checks(told: Happening) -> list[str]:
    return [f"  {line}" for line in check_lines(told["host"], told["results"])]


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


_SAYINGS: dict[str, Callable[[Happening], list[str]]] = {
    "started": _started,
    "opened": lambda told: [f"run {told['run']} of {told['owner']}"],
    "plan": lambda told: [*told["summary"], f"plan {told['hash'][:12]}"],
    "schema": schema_lines,
    "step_started": lambda told: [f"> {told['step']} (budget {clock(told['budget'])})"],
    "step_finished": _step_finished,
    "batch": lambda told: [f"  {batch_line(told)}"],
    "checks": _checks,
    "watched": lambda told: [watching.brief(told)],
    "judged": lambda told: [*watching.lines(told["watch"]), *criteria.lines(told["criteria"])],
    "ended": lambda told: told["lines"],
}


def spark(values: list[float]) -> str:
    """Values as a line of bars, the highest as high as a line of text; nothing but zeros is flat."""
    highest = max([*values, 0.0]) or 1.0
    return "".join(_BARS[min(int(max(value, 0.0) / highest * len(_BARS)), len(_BARS) - 1)] for value in values)


def watch_table(watch: dict[str, Any]) -> Table:
    """Each measure of a watch: how it went lately, what it is, and what it may be."""
    table = Table(box=None, padding=(0, 1), show_header=False)
    for one in watch["measures"]:
        sign, style = _VERDICTS[one["verdict"]]
        latest = "not measured" if one["latest"] is None else f"{watching.number(one['latest'])} {one['unit']}"
        before = "unknown" if one["baseline"] is None else watching.number(one["baseline"])
        told = f"before {before}, SLA {watching.number(one['limit'])}"
        trend = Text(spark(one["trend"][-_TREND:]), style="cyan")
        table.add_row(Text(sign, style), one["name"], trend, Text(latest, style), Text(told, "dim"))
    return table


class LiveTable:
    """The steps with their clocks against their budgets, redrawn while the run goes on.

    The plan stays above them, so that what is happening has room in a terminal of 24 lines.
    """

    def __init__(self, scene: Scene, on_failure: dict[str, str], console: Console) -> None:
        self.console = console
        self.scene = scene
        self.on_failure = on_failure
        self.live = Live(
            get_renderable=self.render, console=console, refresh_per_second=8, transient=False
        )

    def tell(self, happening: Happening) -> None:
        for line in self._planned(happening):
            self.console.print(Text(f"  {line}"))
        if happening["event"] == "judged":
            for one in happening["criteria"]:
                sign, style = _ANSWERS[one["answer"]]
                self.console.print(Text.assemble((sign, style), f" {one['name']}: ", (one["evidence"], "dim")))

    def say(self, line: str) -> None:
        self.console.print(Text(line, style="bold yellow"))

    def render(self) -> Group:
        table = Table(box=None, padding=(0, 1), show_header=False)
        for step in self.scene.steps:
            table.add_row(*self._row(step))
        watch = [watch_table(self.scene.watch)] if self.scene.watch else []
        return Group(self._heading(), table, *watch, *self._footer())

    @staticmethod
    def _planned(happening: Happening) -> list[str]:
        if happening["event"] == "plan":
            return list(happening["summary"])
        return schema_lines(happening) if happening["event"] == "schema" else []

    def _heading(self) -> Text:
        total, limit = self.scene.elapsed(), self.scene.response_time
        spent = f"{clock(total)}{f' of {clock(limit)}' if limit else ''}"
        late = limit is not None and total > limit
        return Text.assemble(
            (self.scene.title, "bold"), "  ", (spent, "bold red" if late else "bold"), f"  {self.scene.run or ''}"
        )

    def _footer(self) -> list[Text]:
        """How it ended, or what is awaited, what a failure would mean, and what was done last."""
        if self.scene.lines:
            style = "bold green" if self.scene.exit_code == 0 else "bold red"
            return [Text(line, style=style, overflow="fold") for line in self.scene.lines]
        current = self.scene.current
        now = ": ".join(filter(None, (self.scene.batch, self.scene.awaited)))
        lines = [Text(f"now      {now}", style="cyan")] if now else []
        if current is None:
            return lines if self.scene.watch else []
        if current.name in self.on_failure:
            lines.append(Text(f"if not   {self.on_failure[current.name]}", style="yellow"))
        return lines + [
            Text(f"         {detail}", style="dim", overflow="ellipsis", no_wrap=True) for detail in self.scene.details
        ]

    def _row(self, step: Step) -> tuple[Text, Text, Text]:
        sign, style = _SIGNS[step.status]
        seconds = self.scene.seconds_of(step)
        expected = self.scene.plan.get("estimates", {}).get(step.name)
        awaited = f"~{clock(round(expected))}" if step.status == "waiting" and expected else ""
        spent = awaited if step.status in ("waiting", "skipped") else clock(seconds)
        over = "bold red" if seconds > step.budget else style
        spent_of = Text(f"{spent:>7} / {clock(step.budget)}", style=over)
        return Text(sign, style=style), Text(step.name, style=style), spent_of


@contextmanager
def paused(view: View) -> Iterator[None]:
    """Leave the terminal to a question."""
    if isinstance(view, LiveTable):
        view.live.stop()
    yield
    if isinstance(view, LiveTable):
        view.live.start()


View = JsonLines | PlainLines | LiveTable


def view(scene: Scene, on_failure: dict[str, str], as_json: bool) -> View:
    """The way of showing that suits standard output."""
    if as_json:
        return JsonLines()
    return LiveTable(scene, on_failure, Console()) if sys.stdout.isatty() else PlainLines()
