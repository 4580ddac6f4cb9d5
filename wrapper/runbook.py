"""The written procedure, generated from what carries it out: playbooks, roles, policy, services and checklists."""
from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.marketsage.rollback.wrapper import policy
from ansible_collections.marketsage.rollback.wrapper.console import clock
from jinja2 import Environment, FileSystemLoader, StrictUndefined

_ROLES = policy.COLLECTION / "roles"
_OURS = "marketsage.rollback."
_PLUMBING = ("ansible.builtin.add_host", "ansible.builtin.set_fact")
_ROLE_TASKS = ("ansible.builtin.import_role", "ansible.builtin.include_role")
_FILE_TASKS = ("ansible.builtin.import_tasks", "ansible.builtin.include_tasks")
# How groups that are not the inventory's own are called.
_CALLED = {"localhost": "control host", "schema": "database", "component_hosts": "the component's hosts"}
# What a task can have beside its module.
_KEYWORDS = {
    "any_errors_fatal", "args", "async", "become", "block", "changed_when", "check_mode", "connection", "delay",
    "delegate_to", "diff", "environment", "failed_when", "ignore_errors", "ignore_unreachable", "loop", "loop_control",
    "name", "no_log", "notify", "poll", "register", "retries", "run_once", "tags", "throttle", "timeout", "until",
    "vars", "when",
}  # fmt: skip

Task = dict[str, Any]


def plays(path: Path, variables: dict[str, Any] | None = None) -> Iterator[tuple[Task, dict[str, Any]]]:
    """Each play of a playbook, imported ones in their place, with the variables that its import gives it."""
    for play in yaml.safe_load(path.read_text()):
        given = {**(variables or {}), **play.get("vars", {})}
        imported = play.get("ansible.builtin.import_playbook")
        if imported:
            yield from plays(path.parent / imported, given)
        else:
            yield play, given


def steps(path: Path) -> list[dict[str, Any]]:
    """The steps of a playbook: name, budget (seconds or None), where (groups of hosts) and what (lines of text)."""
    found: list[dict[str, Any]] = []
    for play, given in plays(path):
        groups = _groups(play["hosts"], given)
        lines = list(_lines(play.get("tasks", []), _Place(groups, _ROLES, {})))
        if found and found[-1]["name"] == play["name"]:
            found[-1]["where"] += [group for group in groups if group not in found[-1]["where"]]
            found[-1]["what"] += lines
        else:
            budget = policy.budgets().get(play["name"])
            found.append({"name": play["name"], "budget": budget, "where": groups, "what": lines})
    return found


def _groups(hosts: str, given: dict[str, Any]) -> list[str]:
    """The groups of an inventory that a play's pattern means, in the reader's words."""
    pattern = str(given.get("rollback_reads", "")) if "rollback_reads" in hosts else hosts
    included = (name for name in pattern.split(":") if name and not name.startswith("!"))
    names = (re.sub(r"^(planned|page|at_once|rolling)_|_planned$", "", name) for name in included)
    return [_CALLED.get(name, name) for name in names]


@dataclass(frozen=True)
class _Place:
    """Where tasks stand: the groups of their hosts, their directory, what was handed to them, how deep they are."""

    groups: list[str]
    directory: Path
    given: dict[str, Any]
    depth: int = 0

    def line(self, text: str) -> str:
        return f"{'    ' * self.depth}- {text}"

    def below(self, **changes: Any) -> _Place:
        return replace(self, depth=self.depth + 1, **changes)


def _lines(tasks: list[Task], place: _Place) -> Iterator[str]:
    """Each task as a line of a nested list, those of roles and imported files below it."""
    for task in tasks:
        if "block" in task:
            yield from _lines(task["block"], place)
            if rescue := list(_lines(task.get("rescue", []), place.below())):
                yield place.line("If that fails:")
                yield from rescue
            continue
        module = next(key for key in task if key not in _KEYWORDS)
        if module in _PLUMBING:
            continue
        shown = f" (`{module.removeprefix(_OURS)}`)" if module.startswith(_OURS) else ""
        yield place.line(_filled(task["name"], place.given) + shown)
        for file in _files(module, task[module], place):
            inside = place.below(directory=file.parent, given={**place.given, **task.get("vars", {})})
            yield from _lines(yaml.safe_load(file.read_text()), inside)


def _filled(name: str, given: dict[str, Any]) -> str:
    """A task's name with the variables in it that were handed to it; what only a run knows is left out."""
    known = {key: str(value) for key, value in given.items() if "{{" not in str(value)}
    filled = re.sub(r"{{ *(\w+).*?}}", lambda found: known.get(found[1], ""), name)
    return filled.strip().rstrip(":")


def _files(module: str, arguments: Any, place: _Place) -> list[Path]:
    """The files of tasks that a task stands for."""
    if module in _FILE_TASKS:
        named = arguments["file"] if isinstance(arguments, dict) else arguments
        return [place.directory / name for name in _alternatives(named)]
    if module not in _ROLE_TASKS:
        return []
    role = arguments["name"].removeprefix(_OURS)
    # A role that is named by its host's group is one for each group that has such a role.
    roles = [group for group in place.groups if (_ROLES / group).is_dir()] if "{{" in role else [role]
    files = _alternatives(arguments.get("tasks_from", "main"))
    return [_ROLES / role / "tasks" / f"{name.removesuffix('.yml')}.yml" for role in roles for name in files]


def _alternatives(name: str) -> list[str]:
    """A name, or those between which an expression chooses."""
    return re.findall(r"'([^']+)'", name) if "{{" in name else [name]


def checklists(procedure: str) -> dict[str, list[str]]:
    """What is verified at the end of a procedure: the lines of each of its services' checklists, by title."""
    catalogue = policy.data("services")["rollback_catalogue"]
    lists = policy.data("checklists")["rollback_checklists"]
    return {
        catalogue[service]["title"]: [line["name"] for line in lists[service]]
        for service in _services(policy.playbook(procedure))
        if service in lists
    }


def _services(path: Path) -> list[str]:
    for _play, given in plays(path):
        if "rollback_services" in given:
            return list(given["rollback_services"])
    return []


def written(only: str | None = None) -> str:
    """The runbook in Markdown, whole or one procedure of it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["clock"] = clock
    names = [only] if only else list(policy.procedures())
    return environment.get_template("runbook.md.j2").render(
        whole=only is None,
        policy=policy.data("policy")["rollback_policy"],
        watch=policy.data("watch")["rollback_watch"],
        procedures={name: _procedure(name) for name in names},
    )


def _procedure(name: str) -> dict[str, Any]:
    """What the template needs of one procedure."""
    path = policy.playbook(name)
    intent = _intent(path)
    return {
        **policy.procedures()[name],
        "intent": intent,
        "headings": headings(intent),
        "steps": steps(path),
        "checklists": checklists(name),
    }


def _intent(path: Path) -> str:
    """What a playbook says of itself at its top, without the commands."""
    lines = path.read_text().splitlines()
    return " ".join(line[2:] for line in lines if re.match(r"# \S", line))


def headings(intent: str) -> list[str]:
    """The headings of the written runbook that a playbook says it carries out."""
    named = re.search(r"\(runbook: (.*?\")\)|\(runbook: (.*)", intent)
    return re.findall(r'"([^"]+)"', named[0]) if named else []
