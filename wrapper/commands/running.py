"""Commands that carry a rollback out, watch it, go on with it or take it back."""
from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click
from ansible_collections.marketsage.rollback.plugins.module_utils import validate
from ansible_collections.marketsage.rollback.wrapper import completion, policy
from ansible_collections.marketsage.rollback.wrapper.commands import answers, options
from ansible_collections.marketsage.rollback.wrapper.commands.options import (
    INVENTORY,
    JSON,
    OPTIONAL_RUN,
    REASON,
    RUN,
    WITHOUT,
    WORDS,
)

# Everything else is imported where it is used, so that --help stays quick.
# ruff: noqa: PLC0415

_SERVICE = f"SERVICE is one of {', '.join(policy.procedures())}; component is followed by the name of a COMPONENT."
_CHOICES = {"f": "fix forward", "r": "roll back", "d": "disable the feature"}


def _request_options(command: Any) -> Any:
    """The words of a rollback."""
    for option in reversed([
        click.argument("service", shell_complete=completion.services),
        click.argument("component", required=False, shell_complete=completion.components),
        click.option("-s", "--severity", metavar="P0..P3", help="The severity of the incident; a backup needs none."),
        REASON,
        click.option("--to", metavar="RELEASE", shell_complete=completion.releases,
                     help="The release to go back to, instead of the last good one."),
        click.option("--back", type=int, metavar="N", help="So many releases back, those marked bad not counted."),
        WITHOUT,
        click.option("--instead-of", metavar="RUN", shell_complete=completion.runs,
                     help="Take the place of a held or interrupted run."),
        click.option("--anyway", is_flag=True, help="Roll back although the severity prefers to fix forward."),
        click.option("--approval", type=click.Path(exists=True, path_type=Path), help="A file with its signature."),
        WORDS,
    ]):  # fmt: skip
        command = option(command)
    return command


def request(service: str, **said: Any) -> dict[str, Any]:
    """The operator's words, checked, as the playbooks' variables."""
    if service not in policy.procedures():
        raise click.BadParameter(f"service: {service!r} is not one of {', '.join(policy.procedures())}")
    component = said.get("component")
    if (service == "component") != bool(component):
        known = ", ".join(policy.components())
        raise click.BadParameter(f"component: say 'component NAME'; the components are {known}")
    variables = {
        "severity": options.checked(validate.severity, said["severity"] or policy.severity_of(service)),
        "reason": options.checked(validate.reason, said["reason"]),
        "anyway": said.get("anyway", False),
        "without": said.get("without", ""),
        **options.said_words(service, said.get("words", ())),
    }
    checks = {"component": validate.identifier, "to": validate.ref, "instead_of": validate.run_id}
    for name, check in checks.items():
        if said.get(name):
            variables[name] = options.checked(check, said[name], name)
    if said.get("back") is not None:
        variables["back"] = options.checked(validate.positive, said["back"], "back")
    if said.get("approval"):
        variables["approval"] = str(said["approval"].resolve())
    return variables


def _carry_out(procedure: str, inventory: Path, variables: dict[str, Any], check: bool, as_json: bool) -> Any:
    from ansible_collections.marketsage.rollback.wrapper import operation

    return operation.carry_out(procedure, inventory, variables, check, as_json)


@click.command(help=f"Show what rolling back SERVICE would change; change nothing.\n\n{_SERVICE}")
@_request_options
@INVENTORY
@JSON
def plan(service: str, inventory: Path, as_json: bool, **said: Any) -> None:
    scene = _carry_out(service, inventory, request(service, **said), True, as_json)
    if scene.status == "new" and not as_json:
        click.echo(f"NEXT: carry it out: {shlex.join(['rollback', 'run', *sys.argv[2:]])}")
    sys.exit(scene.exit_code)


@click.command(help=f"Roll SERVICE back: P0 at once, else after showing the plan and asking.\n\n{_SERVICE}")
@_request_options
@click.option("-y", "--yes", is_flag=True, help="Do not ask, whatever the severity.")
@INVENTORY
@JSON
def run(service: str, yes: bool, inventory: Path, as_json: bool, **said: Any) -> None:
    variables = request(service, **said)
    how = "at_once" if policy.severity_of(service) else policy.severity(variables["severity"])["rollback"]
    if how == "evaluate" and not yes and not as_json:
        _show_evaluation(inventory)
    if how in ("evaluate", "ask") and not yes:
        variables["expected_hash"] = _agreed(service, inventory, variables, how, as_json)
    sys.exit(_carry_out(service, inventory, variables, False, as_json).exit_code)


def _show_evaluation(inventory: Path) -> None:
    from ansible_collections.marketsage.rollback.wrapper import assessment

    found, code = answers.ask("assess.yml", inventory, check=False)
    if not code:  # otherwise it was said why, and the plan is shown all the same
        assessment.show(found)


def _agreed(service: str, inventory: Path, variables: dict[str, Any], how: str, as_json: bool) -> str:
    """Show the plan and ask; the hash of what was agreed to."""
    scene = _carry_out(service, inventory, variables, True, as_json)
    if scene.exit_code:
        sys.exit(scene.exit_code)
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask at; look at the plan, then say --yes")
    if how == "ask":
        _choose(inventory)
    elif not click.confirm("Carry out exactly this plan now?"):
        sys.exit(130)
    return str(scene.plan["hash"])


def _choose(inventory: Path) -> None:
    """Let the operator decide what the severity leaves open; come back only to roll back."""
    shown = ", ".join(f"[{key}] {what}" for key, what in _CHOICES.items())
    choice = click.prompt(f"What is to be done? {shown}", type=click.Choice(list(_CHOICES)), show_choices=False)
    if choice == "f":
        click.echo("Nothing was changed. Fix forward, and come back if that takes too long.")
        sys.exit(130)
    if choice == "d":
        _found, code = answers.ask("disable_feature.yml", inventory, check=False)
        sys.exit(code)


def _go_on(run_id: str, inventory: Path, as_json: bool, /, **variables: Any) -> None:
    """Carry out the procedure of a run again, with what is asked of it; ends the command."""
    sys.exit(_carry_out(options.procedure_of(run_id), inventory, variables, False, as_json).exit_code)


@click.command()
@OPTIONAL_RUN
@WORDS
@INVENTORY
@JSON
def resume(run_id: str | None, words: tuple[str, ...], inventory: Path, as_json: bool) -> None:
    """Go on with your interrupted or held RUN, with the plan that it pinned. Without RUN it is the open one."""
    run_id = answers.open_run(run_id, inventory)
    said = options.said_words(options.procedure_of(run_id), words)
    _go_on(run_id, inventory, as_json, run_id=run_id, **said)


@click.command()
@RUN
@REASON
@INVENTORY
@JSON
def takeover(run_id: str, reason: str, inventory: Path, as_json: bool) -> None:
    """Go on with the open RUN of somebody else; what drives it still can change nothing more."""
    _go_on(run_id, inventory, as_json, run_id=run_id, takeover=options.checked(validate.reason, reason))


@click.command()
@RUN
@WITHOUT
@INVENTORY
@JSON
def abort(run_id: str, without: str, inventory: Path, as_json: bool) -> None:
    """Go back from the open RUN to where it started, with a gate of its own; then exit with 21."""
    _go_on(run_id, inventory, as_json, abort=run_id, without=without)


@click.command()
@RUN
@REASON
@click.option("-s", "--severity", metavar="P0..P3", default="", help="The severity [default: that of RUN].")
@WITHOUT
@INVENTORY
@JSON
def undo(run_id: str, severity: str, inventory: Path, as_json: bool, **said: str) -> None:
    """Go forward again from RUN, which is done, with a plan and a gate of its own."""
    if severity:
        said["severity"] = options.checked(validate.severity, severity)
    said["reason"] = options.checked(validate.reason, said["reason"])
    _go_on(run_id, inventory, as_json, undo=run_id, **said)


@click.command()
@OPTIONAL_RUN
@INVENTORY
@JSON
def attach(run_id: str | None, inventory: Path, as_json: bool) -> None:
    """Watch RUN from this terminal until it ends; Ctrl-C leaves it alone. Without RUN it is the open one."""
    from ansible_collections.marketsage.rollback.wrapper import operation

    run_id = answers.open_run(run_id, inventory)
    options.procedure_of(run_id)
    found = answers.answer("record.yml", inventory, check=True, record_state="shown", run_id=run_id)
    sys.exit(operation.follow_record(Path(found["shown"]["directory"]), as_json).exit_code)
