"""rollback: put a broken system back on its last good release."""
from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from ansible_collections.marketsage.rollback.plugins.module_utils import validate
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import RollbackError
from ansible_collections.marketsage.rollback.wrapper import options, policy

_COMPONENT = click.argument("component", required=False)
_SEVERITY = click.option("-s", "--severity", required=True, metavar="P0..P3", help="The severity of the incident.")
_REASON = click.option("-r", "--reason", required=True, help="Why, in one line; it goes into the record.")
_TO = click.option("--to", metavar="RELEASE", help="The release to go back to, instead of the last good one.")
_INSTEAD_OF = click.option("--instead-of", metavar="RUN", help="Take the place of a held or interrupted run.")
_ANYWAY = click.option(
    "--anyway", is_flag=True, help="Roll back although the severity prefers to fix forward or the component is well."
)
_WORDS = click.option(
    "-e",
    "--extra-vars",
    "words",
    multiple=True,
    metavar="NAME=VALUE",
    help="A variable of the procedure, such as sessions_user=dana@example.com.",
)


_PACKAGE = "ansible_collections.marketsage.rollback"
# Commands in modules of their own, by where they are.
_ELSEWHERE = {
    "ack": f"{_PACKAGE}.wrapper.tell",
    "outbox": f"{_PACKAGE}.wrapper.tell",
    "runbook": f"{_PACKAGE}.wrapper.documents",
    "sandbox": f"{_PACKAGE}.sandbox.commands",
}


class _LazyGroup(click.Group):
    """Loads commands of other modules only when they are asked for, so that --help stays quick."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted([*super().list_commands(context), *_ELSEWHERE])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _ELSEWHERE:
            return super().get_command(context, name)
        command: click.Command = getattr(import_module(_ELSEWHERE[name]), name)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="marketsage-rollback")
def main() -> None:
    """Put a broken production system back on its last good release."""


def _request(
    service: str,
    *,
    severity: str,
    reason: str,
    component: str | None = None,
    to: str | None = None,
    instead_of: str | None = None,
    anyway: bool = False,
    words: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The operator's words, checked, as the playbooks' variables."""
    try:
        if service not in policy.procedures():
            known = ", ".join(policy.procedures())
            raise click.BadParameter(f"service: {service!r} is not one of {known}")
        if (service == "component") != bool(component):
            known = ", ".join(policy.components())
            raise click.BadParameter(f"component: say 'component NAME'; the components are {known}")
        request: dict[str, Any] = {
            "severity": validate.severity(severity),
            "reason": validate.reason(reason),
            "anyway": anyway,
            **_words(service, words),
        }
        if component:
            request["component"] = validate.identifier(component, "component")
        if to:
            request["to"] = validate.ref(to)
        if instead_of:
            request["instead_of"] = validate.run_id(instead_of, "instead_of")
        return request
    except RollbackError as error:
        raise click.BadParameter(str(error)) from None


def _words(service: str, words: tuple[str, ...]) -> dict[str, str]:
    """The variables of a procedure that the operator set."""
    allowed = policy.words(service)
    said = dict(word.partition("=")[::2] for word in words)
    for name in said:
        if name not in allowed:
            known = ", ".join(allowed) or "none"
            raise click.BadParameter(f"extra-vars: {name!r} is no variable of {service}; it has {known}")
    return said


def _launch(procedure: str, inventory: Path, variables: dict[str, Any], check: bool, as_json: bool) -> Any:
    """Run a procedure's playbook while showing it; returns its progress and exit code."""
    from ansible_collections.marketsage.rollback.wrapper import console, launch  # noqa: PLC0415
    from ansible_collections.marketsage.rollback.wrapper.progress import Progress  # noqa: PLC0415

    playbook = policy.playbook(procedure)
    progress = Progress(policy.steps(playbook, only_plan=check))
    severity = variables.get("severity")
    response_time = policy.severity(severity)["response_time"] if severity else None
    title = policy.procedures()[procedure]["title"]
    view = console.view(progress, f"{title} ({inventory.name})", response_time, as_json)

    def handle(event: dict[str, Any]) -> None:
        for happening in progress.take(event):
            view.tell(happening)

    with view.live:
        code = launch.run_playbook(playbook, inventory.resolve(), variables, check, handle)
    view.tell(progress.ended(code))
    return progress, code


@main.command()
@click.argument("service")
@_COMPONENT
@_SEVERITY
@_REASON
@_TO
@_INSTEAD_OF
@_ANYWAY
@_WORDS
@options.INVENTORY
@options.JSON
def plan(service: str, inventory: Path, as_json: bool, **said: Any) -> None:
    """Show what rolling back SERVICE would change; change nothing.

    SERVICE is backend, frontend, full_system, database, restore_archive, data_recovery, backup, sessions,
    frontend_manual (a commit named with --to is built), or component with the name of a COMPONENT.
    """
    _progress, code = _launch(service, inventory, _request(service, **said), True, as_json)
    sys.exit(code)


@main.command()
@click.argument("service")
@_COMPONENT
@_SEVERITY
@_REASON
@_TO
@_INSTEAD_OF
@_ANYWAY
@_WORDS
@click.option("-y", "--yes", is_flag=True, help="Do not ask, whatever the severity.")
@options.INVENTORY
@options.JSON
def run(service: str, yes: bool, inventory: Path, as_json: bool, **said: Any) -> None:
    """Roll SERVICE back: P0 at once, otherwise after showing the plan and asking.

    SERVICE is backend, frontend, full_system, database, restore_archive, data_recovery, backup, sessions,
    frontend_manual (a commit named with --to is built), or component with the name of a COMPONENT.
    """
    request = _request(service, **said)
    if policy.severity(request["severity"])["rollback"] != "at_once" and not yes:
        request["expected_hash"] = _confirmed(service, inventory, request, as_json)
    _progress, code = _launch(service, inventory, request, False, as_json)
    sys.exit(code)


def _confirmed(service: str, inventory: Path, request: dict[str, Any], as_json: bool) -> str:
    """Show the plan and ask; the hash of what was agreed to."""
    progress, code = _launch(service, inventory, request, True, as_json)
    if code:
        sys.exit(code)
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask at; look at the plan, then say --yes")
    if not click.confirm("Carry out exactly this plan now?"):
        sys.exit(130)
    return str(progress.plan["hash"])


@main.command()
@click.argument("run_id", metavar="RUN")
@_WORDS
@options.INVENTORY
@options.JSON
def resume(run_id: str, words: tuple[str, ...], inventory: Path, as_json: bool) -> None:
    """Go on with the interrupted or held RUN, with the plan that it pinned."""
    procedure = _procedure_of(run_id)
    _end_with(procedure, inventory, {"run_id": run_id, **_words(procedure, words)}, as_json)


@main.command()
@click.argument("run_id", metavar="RUN")
@_REASON
@_INVENTORY
@_JSON
def takeover(run_id: str, reason: str, inventory: Path, as_json: bool) -> None:
    """Go on with the open RUN of somebody else, who is shut out from now on."""
    _end_with(_procedure_of(run_id), inventory, {"run_id": run_id, "takeover": reason}, as_json)


@main.command()
@click.argument("run_id", metavar="RUN")
@_INVENTORY
@_JSON
def abort(run_id: str, inventory: Path, as_json: bool) -> None:
    """Go back to where the open RUN started, through the same gate."""
    _end_with(_procedure_of(run_id), inventory, {"abort": run_id}, as_json)


@main.command()
@click.argument("run_id", metavar="RUN")
@_INVENTORY
@_JSON
def undo(run_id: str, inventory: Path, as_json: bool) -> None:
    """Go forward again to what was live before RUN, through the same gate."""
    _end_with(_procedure_of(run_id), inventory, {"undo": run_id}, as_json)


def _procedure_of(run_id: str) -> str:
    try:
        procedure = validate.run_id(run_id).split("-")[1]
    except RollbackError as error:
        raise click.BadParameter(str(error)) from None
    if procedure not in policy.procedures():
        raise click.BadParameter(f"run_id: {run_id} is a run of {procedure!r}, which this version does not know")
    return procedure


def _end_with(procedure: str, inventory: Path, variables: dict[str, Any], as_json: bool) -> None:
    _progress, code = _launch(procedure, inventory, variables, False, as_json)
    sys.exit(code)


@main.command()
@click.argument("kind", metavar="KIND")
@click.option("--keep", is_flag=True, help="Leave the drill's sandbox running.")
@options.JSON
def drill(kind: str, keep: bool, as_json: bool) -> None:
    """Break a sandbox of its own under load, roll it back, and say how it went.

    KIND is backend, frontend, full-system or database.
    """
    from ansible_collections.marketsage.rollback.sandbox import drill as drills  # noqa: PLC0415
    from ansible_collections.marketsage.rollback.sandbox import layout, stack  # noqa: PLC0415
    from ansible_collections.marketsage.rollback.sandbox.processes import SandboxError  # noqa: PLC0415
    from ansible_collections.marketsage.rollback.wrapper import scorecard  # noqa: PLC0415

    if kind not in drills.DRILLS:
        raise click.BadParameter(f"kind: {kind!r} is not one of {', '.join(drills.DRILLS)}")
    chosen = drills.DRILLS[kind]
    place = layout.Layout(drills.directory_beside(layout.default_directory()), drills.PORT_BASE)
    os.environ["ROLLBACK_SANDBOX"] = str(place.directory)
    runs: list[Any] = []

    def carry_out(procedure: str, reason: str, words: dict[str, str]) -> tuple[int, str]:
        request = {**_request(procedure, severity=chosen.severity, reason=reason), **words}
        progress, code = _launch(procedure, policy.SANDBOX, request, False, as_json)
        runs.append(progress)
        return int(code), (progress.ending.run or {}).get("id", "")

    try:
        result = drills.hold(chosen, place, drills.Hands(carry_out, _quiet if as_json else click.echo))
        records = [drills.keep_record(place, run.ending.run["id"]) for run in runs if run.ending.run]
        score = scorecard.score(result, runs, records)
        print(json.dumps(score)) if as_json else scorecard.show(score)
    except SandboxError as error:
        raise click.ClickException(str(error)) from None
    finally:
        if not keep and place.directory.exists():
            stack.down(place)
    sys.exit(result["exit_code"])


def _quiet(_line: str) -> None:
    pass


@main.command()
@options.INVENTORY
@options.JSON
def status(inventory: Path, as_json: bool) -> None:
    """Show what is live, what could be restored, and who holds the lock; change nothing."""
    from ansible_collections.marketsage.rollback.wrapper import launch, overview  # noqa: PLC0415

    found: dict[str, Any] = {}

    def handle(event: dict[str, Any]) -> None:
        values = (event.get("event_data") or {}).get("res") or {}
        found.update((values.get("ansible_facts") or {}).get("rollback_overview") or {})

    code = launch.run_playbook(policy.PLAYBOOKS / "status.yml", inventory.resolve(), {}, True, handle)
    if as_json:
        print(json.dumps({"version": 1, **found}))
    elif found:
        overview.show(found)
    else:
        print(f"The environment of {os.fspath(inventory)} could not be read at all.", file=sys.stderr)
    sys.exit(code)
