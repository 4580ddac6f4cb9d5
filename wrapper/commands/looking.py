"""Commands that only look: at what is live, at the record, at who is on call, at what is wrong."""
from __future__ import annotations

import sys
from pathlib import Path

import click
from ansible_collections.marketsage.rollback.plugins.module_utils import validate
from ansible_collections.marketsage.rollback.wrapper import completion
from ansible_collections.marketsage.rollback.wrapper.commands import answers, options
from ansible_collections.marketsage.rollback.wrapper.commands.options import INVENTORY, JSON, OPTIONAL_RUN

# ruff: noqa: PLC0415


@click.command()
@INVENTORY
@JSON
def status(inventory: Path, as_json: bool) -> None:
    """Show what is live, what could be restored, and who holds the lock; change nothing."""
    from ansible_collections.marketsage.rollback.wrapper import drill_history, overview

    read, code = answers.ask("status.yml", inventory, check=True)
    found = read.get("rollback_overview") or {}
    if found:
        found["last_drill"] = drill_history.last_of_this_host()
        completion.remember(inventory, runs=found["runs"], releases=overview.names(found))
    if as_json:
        answers.print_json(**found)
    elif found:
        overview.show(found)
    else:
        click.echo(f"The environment of {inventory} could not be read at all.", err=True)
    sys.exit(code)


@click.command()
@INVENTORY
@JSON
def assess(inventory: Path, as_json: bool) -> None:
    """Say how bad it is, whether the last deploy is the likely cause, and what to type."""
    from ansible_collections.marketsage.rollback.wrapper import assessment

    found = answers.answer("assess.yml", inventory, check=False)
    answers.print_json(**assessment.told(found)) if as_json else assessment.show(found)


@click.command()
@INVENTORY
@JSON
def history(inventory: Path, as_json: bool) -> None:
    """List every run: who, why, how it ended, how long until service was restored, and that by month."""
    from ansible_collections.marketsage.rollback.wrapper import record

    found = answers.answer("record.yml", inventory, check=True)
    completion.remember(inventory, runs=[run["run"] for run in found["runs"]])
    if as_json:
        answers.print_json(runs=found["runs"], months=found["months"])
        return
    record.show_list(found["runs"])
    record.show_months(found["months"])


@click.command()
@OPTIONAL_RUN
@INVENTORY
@JSON
def show(run_id: str | None, inventory: Path, as_json: bool) -> None:
    """Show everything that is on record of RUN. Without RUN it is the newest."""
    from ansible_collections.marketsage.rollback.wrapper import record

    run_id = answers.newest_run(run_id, inventory)
    options.procedure_of(run_id)
    found = answers.answer("record.yml", inventory, check=True, record_state="shown", run_id=run_id)
    answers.print_json(**found["shown"]) if as_json else record.show_run(found["shown"])


@click.command()
@OPTIONAL_RUN
@click.option("--for", "duration", metavar="90s|30m|2h", help="For how long [default: as the policy says].")
@INVENTORY
@JSON
def watch(run_id: str | None, duration: str | None, inventory: Path, as_json: bool) -> None:
    """Watch how it goes after RUN against the time before the bad release, and judge it.

    It is told to those on call and exits with 5 where it is worse again, with 30 where that cannot be told. Without RUN
    it is the newest.
    """
    from ansible_collections.marketsage.rollback.wrapper import operation

    run_id = answers.newest_run(run_id, inventory)
    options.procedure_of(run_id)
    seconds = options.seconds(duration, "for") if duration else None
    sys.exit(operation.watch(run_id, inventory, seconds, as_json))


@click.command()
@click.argument("service", shell_complete=completion.services)
@INVENTORY
@JSON
def verify(service: str, inventory: Path, as_json: bool) -> None:
    """Go through the checklist of SERVICE, or of full_system, as a user would; exit with 5 if a check fails."""
    from ansible_collections.marketsage.rollback.wrapper import record

    said = {} if service == "full_system" else {"service": options.checked(validate.identifier, service, "service")}
    found, code = answers.ask("health_check.yml", inventory, check=False, **said)
    results = found["checks"]
    answers.print_json(passed=code == 0, results=results) if as_json else record.show_checks(results)
    sys.exit(code)


@click.command()
@INVENTORY
@JSON
def oncall(inventory: Path, as_json: bool) -> None:
    """Show who is on call and how to reach them."""
    from ansible_collections.marketsage.rollback.wrapper import record

    found, code = answers.ask("oncall.yml", inventory, check=True)
    people = found.get("rollback_on_call", {})
    answers.print_json(people=people) if as_json else record.show_people(people)
    sys.exit(code)


@click.command()
@INVENTORY
@JSON
def doctor(inventory: Path, as_json: bool) -> None:
    """Say whether everything that a P0 needs is there without the internet; exit with 5 if something is not."""
    from ansible_collections.marketsage.rollback.wrapper import record

    found, code = answers.ask("doctor.yml", inventory, check=True)
    results = found.get("examined", [])
    answers.print_json(results=results) if as_json else record.show_checks(results)
    sys.exit(code or (5 if any(result["status"] == "failed" for result in results) else 0))


@click.group()
def audit() -> None:
    """Look after the record of all runs."""


@audit.command("verify")
@INVENTORY
@JSON
def audit_verify(inventory: Path, as_json: bool) -> None:
    """Verify the record of every run; exit with 30 where it is not what was written."""
    runs = answers.answer("record.yml", inventory, check=True, record_state="audited")["runs"]
    answers.say(as_json, f"{len(runs)} runs: each record is what was written", runs=runs)
