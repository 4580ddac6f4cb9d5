"""The report of a run, from its record alone: what happened, how it went since, what is to be done."""
from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import assessment, planning, watching
from ansible_collections.marketsage.rollback.wrapper import advice, launch, plots, policy
from ansible_collections.marketsage.rollback.wrapper.console import clock
from jinja2 import Environment, FileSystemLoader, StrictUndefined

_DETAILS = 160
_SIGNS = {"yes": "✓", "no": "✗", "unknown": "?", "passed": "✓", "failed": "✗", "better": "✓", "worse": "✗"}
_NO_LIBRARY = "No plots: matplotlib is not installed (pip install 'marketsage-rollback[report]')."
_NO_WATCH = "No plots: it was not watched when traffic was back (rollback watch RUN)."

Shown = dict[str, Any]


def write(shown: Shown, directory: Path) -> list[Path]:
    """Write report.md and report.html into a directory; where they are."""
    values = facts(shown)
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for name in ("report.md", "report.html"):
        file = directory / name
        file.write_text(_environment(name).get_template(f"{name}.j2").render(values))
        files.append(file)
    return files


def _environment(name: str) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=StrictUndefined,
        autoescape=name.endswith(".html"),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(clock=clock, md=as_markdown, sign=lambda word: _SIGNS.get(word, "?"))
    environment.globals["figures"] = watching.figures
    return environment


def as_markdown(text: Any) -> str:
    """Text in one line in which nothing is Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]<>|&#~])", r"\\\1", " ".join(str(text).split()))


def facts(shown: Shown) -> dict[str, Any]:
    """What the templates are filled with."""
    plan, outcome, watch = shown["plan"], shown["outcome"] or {}, shown["watch"]
    times = moments(shown)
    drawn, no_plots = pictures(watch, times)
    return {
        "run": shown,
        "plan": plan,
        "plan_lines": planning.summary(plan),
        "summary": summary(shown, times),
        "times": {name: stamp(at) for name, at in times.items()},
        "timeline": timeline(shown["journal"]),
        "steps": steps(shown),
        "plots": drawn,
        "no_plots": no_plots,
        "watch": watch,
        "criteria": shown["criteria"],
        "checks": checks(Path(shown["directory"]), watch),
        "screenshots": screenshots(Path(shown["directory"])),
        "kept": kept(shown["journal"]),
        "undo": undo(shown),
        "commits": [commit for part in plan["services"].values() for commit in part.get("leaves", [])],
        "left": [
            f"{service} {planning.name_of(release)}"
            for service, part in plan["services"].items()
            for release in (part["from"] if part["action"] == "rollback" else [])
        ],
        "by_hand": [*outcome.get("undone", []), *outcome.get("left_to_do", [])],
        "notes": outcome.get("notes", []),
        "afterwards": afterwards(shown),
        "written": stamp(datetime.now(UTC).timestamp()),
    }


def stamp(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def moments(shown: Shown) -> dict[str, float]:
    """The events of a run by name, in seconds since 1970; what is not on record is left out."""
    outcome, watch = shown["outcome"] or {}, shown["watch"] or {}
    looked = {(entry["step"], entry["kind"]): entry["time"] for entry in reversed(shown["journal"])}
    known = {
        "bad release live": watch.get("live_since"),
        "rollback begins": assessment.seconds(shown["opened"]),
        "page up": assessment.seconds(looked.get(("maintenance.enabled", "outcome"))),
        "traffic back": assessment.seconds(looked.get(("maintenance.disabled", "outcome"))),
        "rollback ends": assessment.seconds(outcome.get("closed")),
    }
    return {name: at for name, at in known.items() if at is not None}


def summary(shown: Shown, times: dict[str, float]) -> list[str]:
    """Three lines for somebody who reads nothing else."""
    plan, row = shown["plan"], policy.severity(shown["severity"])
    services = " and ".join(planning.changed_services(plan)) or shown["procedure"]
    what = f"{services} in {plan['environment']} went back on {stamp(times['rollback begins'])}: {shown['reason']}."
    return [f"{row['name']} ({shown['severity']}): {what}", _how_long(times, row["response_time"]), _since_then(shown)]


def _how_long(times: dict[str, float], allowed: int) -> str:
    if "rollback ends" not in times:
        return f"It has not ended yet; {clock(allowed)} are allowed."
    took = clock(times["rollback ends"] - times["rollback begins"])
    said = [f"The rollback took {took} of the {clock(allowed)} that are allowed"]
    if {"page up", "traffic back"} <= times.keys():
        said.append(f"users met the maintenance page for {clock(times['traffic back'] - times['page up'])}")
    if "bad release live" in times:
        back = times.get("traffic back", times["rollback ends"])
        said.append(f"the bad release was out for {clock(back - times['bad release live'])}")
    return f"{'; '.join(said)}."


def _since_then(shown: Shown) -> str:
    words = {"better": "it is as well as before the bad release", "worse": "it is worse again"}
    watch = shown["watch"]
    since = words.get(watch["verdict"], "it cannot be told how it is") if watch else "it was not watched"
    told = {"yes": "met", "no": "not met", "unknown": "not known"}
    counts = {words: sum(one["answer"] == answer for one in shown["criteria"]) for answer, words in told.items()}
    return f"Since then {since}; success criteria: {', '.join(f'{count} {what}' for what, count in counts.items())}."


def timeline(entries: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The journals of all hosts as rows: time, host, step, kind and what was written down."""
    return [
        {
            "time": entry["time"][11:19],
            "host": entry["at"],
            "step": re.sub(r"[._]", " ", entry["step"]),
            "kind": {"intent": "begins", "outcome": "done"}.get(entry["kind"], entry["kind"]),
            "details": _details(entry["data"]),
        }
        for entry in entries
    ]


def _details(data: dict[str, Any]) -> str:
    """The plain values of an entry, without hashes."""
    plain = [
        f"{key}: {value}"
        for key, value in data.items()
        if isinstance(value, str | int | float) and not re.fullmatch(r"[0-9a-f]{64}", str(value))
    ]
    told = ", ".join(plain)
    return told if len(told) <= _DETAILS else f"{told[:_DETAILS]}..."


def steps(shown: Shown) -> list[dict[str, Any]]:
    """Each step that had something to do, in its order, with its seconds and its budget."""
    return [
        {"name": name, "seconds": shown["steps"][name], "budget": budget, "over": shown["steps"][name] > budget}
        for name, budget in policy.steps(policy.playbook(shown["procedure"])).items()
        if name in shown["steps"]
    ]


def pictures(watch: dict[str, Any] | None, times: dict[str, float]) -> tuple[list[str], str]:
    """The plots, and why there are none."""
    if not watch or not any(watch["series"].values()):
        return [], _NO_WATCH
    if not plots.is_possible():
        return [], _NO_LIBRARY
    drawn = []
    for shows, title in (("errors", "Error rate"), ("latency", "Response times")):
        measures = [one for one in watch["measures"] if one["shows"] == shows]
        if measures:
            drawn.append(plots.plot(f"{title} ({measures[0]['unit']})", measures, watch["series"], times))
    return drawn, ""


def checks(directory: Path, watch: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Checklist results by who asked: each host in the run, as the command saw it last, then the watch at its end."""
    found = {event["host"]: event["results"] for event in _events(directory) if event["event"] == "checks"}
    named = [{"title": f"In the run, {host}", "results": results} for host, results in found.items()]
    for title, key in (("After the watch, from outside", "health"), ("After the watch, in a browser", "users")):
        if watch and watch[key]:
            named.append({"title": title, "results": watch[key]})
    return named


def _events(directory: Path) -> list[dict[str, Any]]:
    try:
        lines = (directory / launch.EVENTS).read_text().splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def screenshots(directory: Path) -> list[dict[str, str]]:
    """The browser's pictures, as data that a page can hold."""
    taken = {"watch": "after the watch", "screenshots": "in the run"}
    return [
        {
            "title": f"{file.stem.replace('-', ' ')} ({taken.get(file.parent.name, file.parent.name)})",
            "data": base64.b64encode(file.read_bytes()).decode(),
        }
        for file in sorted((directory / "screenshots").rglob("*.png"))
    ]


def kept(entries: list[dict[str, Any]]) -> list[str]:
    """What was archived or kept, and where."""
    found = []
    for entry in entries:
        data = entry["data"] if entry["kind"] == "outcome" else {}
        if entry["step"] == "schema.rolled_back" and data:
            rows = [f"{each['rows']} rows of {_place(each)}" for each in data.get("archived", [])]
            found.append(f"database, schema {data['archive']}: {'; '.join(rows) or 'rows not on record'}")
        if entry["step"] in ("backup.taken", "database.live") and data:
            found.append(f"{entry['at']}: {entry['step'].replace('.', ' ')}: {_details(data)}")
    return found


def _place(each: dict[str, Any]) -> str:
    return ".".join(filter(None, (each["table"], each["column"])))


def undo(shown: Shown) -> list[str]:
    """What to type to take the run back."""
    run = shown["run"]
    commands = {
        "open": [f"rollback resume {run}", f"rollback abort {run}"],
        "done": [f"rollback undo {run} -r WHY"],
    }.get(shown["state"], [])
    archived = any(entry["step"] == "schema.rolled_back" for entry in shown["journal"])
    again = f"rollback run restore_archive -s {shown['severity']} -r WHY -e archive_of={run}"
    return [advice.typed(command) for command in [*commands, *([again] if archived else [])]]


def afterwards(shown: Shown) -> dict[str, list[dict[str, Any]]]:
    """What is to be done by when, ticked where the record shows it done."""
    answers = {one["name"]: one["answer"] for one in shown["criteria"]}
    done = {
        "green": answers["All services return to green status"] == "yes",
        "watched": shown["watch"] is not None,
        "told": any(message["state"] == "sent" for message in shown["messages"]),
        "recorded": True,
    }
    lists = policy.data("policy")["rollback_policy"]["afterwards"]
    return {
        time: [{"action": one["action"], "done": done.get(one.get("ticked_by", ""), False)} for one in actions]
        for time, actions in lists.items()
    }
