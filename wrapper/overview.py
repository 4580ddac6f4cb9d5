"""The status screen: what is live and what could be restored, on one page."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from ansible_collections.marketsage.rollback.wrapper import advice, scorecard
from ansible_collections.marketsage.rollback.wrapper.console import clock
from rich.console import Console
from rich.table import Table
from rich.text import Text

_LABEL, _RELEASE = 13, 12
_MARK_STYLES = {"good": "green", "bad": "red"}


def show(found: dict[str, Any]) -> None:
    """Print what the status playbook found."""
    console = Console()
    console.print(Text(f"Environment {found['environment']}", style="bold"))
    console.print(_aligned(_lines(found)))
    for service, hosts in found["services"].items():
        console.print(service_table(service, hosts, found))
        for line in unread_lines(hosts, found):
            console.print(line, soft_wrap=not console.is_terminal)


def _lines(found: dict[str, Any]) -> Iterator[Text]:
    """What is not of one release, a line each."""
    yield lock_line(found["holder"])
    yield freeze_line(found["frozen"])
    for host, read in found["maintenance"].items():
        yield maintenance_line(host, read)
        if out := out_of_rotation(read):
            yield Text(f"rotation     without {', '.join(out)} on {host}", style="bold yellow")
    for archive in found["archives"]:
        waiting = f"{archive['waiting']} of {archive['items']} things not brought back"
        yield Text(f"archive      {archive['name']}: {waiting}")
    yield backup_line(found["backups"])
    yield drill_line(found["last_drill"])


def _aligned(lines: Iterable[Text]) -> Table:
    """Lines whose words go on below each other where they do not fit."""
    table = Table.grid()
    table.add_column(width=_LABEL)
    table.add_column(overflow="fold")
    for line in lines:
        table.add_row(line[:_LABEL], line[_LABEL:])
    return table


def names(found: dict[str, Any]) -> list[str]:
    """What releases can be called, the live ones and those that could be restored."""
    read = [report for report in found["reports"].values() if report]
    releases = [one for report in read for one in [report.get("live"), *report.get("candidates", [])] if one]
    return sorted({str(one[key]) for one in releases for key in ("ref", "release") if one.get(key)})


def freeze_line(frozen: list[dict[str, Any]]) -> Text:
    """Whether anything holds deploys back."""
    if not frozen:
        return Text("deploys      not frozen", style="green")
    one = frozen[0]
    until = f"until {_time(one['until'])}" if one["until"] else "while the run is open"
    return Text(f"deploys      frozen by {one['by']} {until}: {one['reason']}", style="yellow")


def lock_line(holder: dict[str, Any] | None) -> Text:
    if holder is None:
        return Text("lock         free", style="green")
    text = f"lock         run {holder['run']} of {holder['owner']} since {holder['since']} ({holder['reason']})"
    go_on = advice.typed(f"rollback resume {holder['run']}")
    return Text(f"{text}\ngo on with it: {go_on}", style="bold yellow")


def maintenance_line(host: str, read: dict[str, Any]) -> Text:
    enabled = read.get("enabled")
    if enabled is None:
        return Text(f"maintenance  unknown on {host}: {read.get('msg', 'not read')}", style="yellow")
    return Text(f"maintenance  {'ON' if enabled else 'off'} on {host}", style="bold yellow" if enabled else "green")


def out_of_rotation(read: dict[str, Any]) -> list[str]:
    """The backend hosts that a balancer sends no requests to, and why."""
    servers = (read.get("servers") or {}).values()
    states = {one["name"]: one["operational"] if one["admin"] == "ready" else one["admin"] for one in servers}
    return [f"{name} ({state})" for name, state in states.items() if state != "running"]


def backup_line(read: dict[str, Any]) -> Text:
    """The last proven backup: its id, age and size."""
    if "backups" not in read:
        return Text(f"backup       unknown: {read.get('msg', 'no backups are configured')}", style="yellow")
    proven = [backup for backup in read["backups"] if backup["state"] == "proven"]
    if not proven:
        return Text("backup       none is proven", style="bold yellow")
    last = proven[0]
    hours, minutes = divmod(last["age"] // 60, 60)
    size = f"{last['size'] / 1e6:.1f} MB, {last['rows']} rows"
    return Text(f"backup       {last['id']}, {hours} h {minutes} min old, {size}, proven", style="green")


def service_table(service: str, hosts: list[str], found: dict[str, Any]) -> Table:
    """What is live on each host of a service, then what it could go back to."""
    table = Table(title=service, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, min_width=max(len(f"live {host}") for host in ["", *hosts]))
    table.add_column("release", no_wrap=True, min_width=_RELEASE)
    for column in ("tag", "since", "known", "schema", "kept"):
        table.add_column(column, no_wrap=True)
    for host in hosts:
        live = _report(host, found).get("live")
        told = _release(service, live, found) if live else (Text("unknown", style="yellow"),)
        table.add_row(f"live {host}", *told)
    for candidate in _candidates(hosts, found):
        table.add_row("restore", *_release(service, candidate, found), kept(candidate, hosts, found))
    return table


def unread_lines(hosts: list[str], found: dict[str, Any]) -> list[Text]:
    """Why it is not known what is live on a host, a line each."""
    reports = {host: _report(host, found) for host in hosts}
    return [
        Text(f"{host}: {report.get('msg', 'not read')}", style="yellow")
        for host, report in reports.items()
        if not report.get("live")
    ]


def _report(host: str, found: dict[str, Any]) -> dict[str, Any]:
    """What was read on a host; empty where nothing was."""
    report: dict[str, Any] = found["reports"].get(host) or {}
    return report


def kept(candidate: dict[str, Any], hosts: list[str], found: dict[str, Any]) -> Text:
    """Where a release is built, or for how long its image is kept: what is not must be built before it can run."""
    if "can_rollback" in candidate:
        return _image(candidate["can_rollback"], candidate.get("retention_left"))
    reports = {host: _report(host, found) for host in hosts}
    known = {host: report["candidates"] for host, report in reports.items() if "candidates" in report}
    built = [
        host
        for host, candidates in known.items()
        for one in candidates
        if one["commit"] == candidate["commit"] and one["built"]
    ]
    if len(built) == len(known):
        return Text("built", style="green")
    return Text(f"built on {', '.join(built)} alone" if built else "to be built", style="yellow")


def _image(is_kept: bool, left: int | None) -> Text:
    if not is_kept:
        return Text("to be built", style="yellow")
    return Text("image" if left is None else f"image, {left // 3600} h", style="green")


def drill_line(last: dict[str, Any] | None) -> Text:
    """The last drill of this control host: which, when, how it ended, and how long users were away."""
    if last is None:
        return Text("last drill   none was held: rollback drill full-system", style="yellow")
    if "error" in last:
        return Text(f"last drill   unknown: {last['error']}", style="yellow")
    away = scorecard.figures(last)["first page to first good answer"]
    ended = "ended well" if last["exit_code"] == 0 else f"ended with exit code {last['exit_code']}"
    took = f", users were away for {clock(away)}" if away is not None else ""
    style = "green" if last["exit_code"] == 0 else "yellow"
    return Text(f"last drill   {last['kind']} ({last['scenario']}) on {_time(last['time'])} {ended}{took}", style=style)


def _candidates(hosts: list[str], found: dict[str, Any]) -> list[dict[str, Any]]:
    """What the first host that was read could go back to, each commit once."""
    reports = [_report(host, found) for host in hosts]
    readable = (report["candidates"] for report in reports if report.get("candidates"))
    candidates: list[dict[str, Any]] = next(readable, [])
    return list({candidate["commit"]: candidate for candidate in reversed(candidates)}.values())[::-1]


def _time(moment: str | None) -> str:
    """A time of the record as a tired person reads it, in UTC."""
    return f"{datetime.fromisoformat(moment):%d %b %H:%M}" if moment else ""


def _release(service: str, release: dict[str, Any], found: dict[str, Any]) -> tuple[str, str, str, Text, str]:
    commit = release.get("commit") or ""
    mark = found["marks"].get(service, {}).get(commit, {}).get("mark", "-")
    verdict = found["verdicts"].get(commit[:12], {}).get("verdict", "")
    return (
        commit[:12] or "unknown",
        release.get("ref") or "",
        _time(release.get("since") or release.get("live_at") or release.get("created")),
        Text(mark, style=_MARK_STYLES.get(mark, "dim")),
        verdict if service == "backend" else "",
    )
