"""The evaluation on one screen: what was measured, what it means, what is likely the cause, what to type."""
from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ansible_collections.marketsage.rollback.wrapper import advice
from rich.console import Console
from rich.table import Table
from rich.text import Text

_PARTS = (
    "asked_prometheus", "measured", "failing", "severity", "since", "deploys", "cause", "action", "procedure", "reason",
    "command",
)  # fmt: skip


def told(found: dict[str, Any]) -> dict[str, Any]:
    return {**{part: found[part] for part in _PARTS}, "command": advice.typed(found["command"] or "") or None}


def show(found: dict[str, Any]) -> None:
    console = Console()
    if found["asked_prometheus"]:
        console.print(measured_table(found["measured"]))
    else:
        console.print(Text("No Prometheus in the inventory (prometheus_url): the checks alone are judged.", "yellow"))
    for check in found["failing"]:
        console.print(Text(f"{check['severity']}  {check['name']}: {check['evidence']}", "bold red"))
    console.print(cause_line(found))
    verdict = f"{found['severity']}: {found['action']}" if found["severity"] else "No trigger is exceeded."
    console.print(Text(verdict, "bold red" if found["severity"] else "bold green"))
    if found["command"]:
        console.print(Text(advice.typed(found["command"]), "bold"), soft_wrap=True)


def measured_table(measured: list[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for one in measured:
        state = {True: ("exceeded", "bold red"), False: ("ok", "green"), None: ("unknown", "yellow")}[one["exceeded"]]
        value = one["problem"] if one["value"] is None else f"{one['value']:.3g} {one['unit']} (limit {one['limit']:g})"
        since = f", since {moment(one['since'])}" if one["since"] else ""
        table.add_row(one["severity"], Text(*state), one["name"], value + since)
    return table


def cause_line(found: dict[str, Any]) -> Text:
    """Whether the last deploy explains it."""
    if found["cause"]:
        named = " and ".join(f"{one['service']} {one['ref'] or one['commit']}" for one in found["cause"])
        return Text(f"Likely cause: {named}, live since {moment(found['cause'][0]['since'])}", "bold")
    if not found["severity"]:
        return Text("")
    if not found["deploys"]:
        return Text("Cause: unknown; nothing tells when it went live.", "yellow")
    last = found["deploys"][0]
    why = f"it began at {moment(found['since'])}" if found["since"] else "it is not known when this began"
    named = f"{last['service']} {last['ref'] or last['commit']} went live at {moment(last['since'])}"
    return Text(f"Cause: not clear; {named}, {why}.", "yellow")


def moment(seconds: float) -> str:
    """A time in UTC, with its day where that is not today."""
    then = datetime.fromtimestamp(seconds, UTC)
    return f"{then:%H:%M:%S}Z" if then.date() == datetime.now(UTC).date() else f"{then:%d %b %H:%M:%S}Z"
