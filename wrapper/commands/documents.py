"""Commands that write or read documents: the runbook, a check of one, the report of a run."""
from __future__ import annotations

import sys
from pathlib import Path

import click
from ansible_collections.marketsage.rollback.wrapper import policy
from ansible_collections.marketsage.rollback.wrapper.commands import answers, options
from ansible_collections.marketsage.rollback.wrapper.commands.options import INVENTORY, JSON, OPTIONAL_RUN

# What renders is imported where it is used, so that --help stays quick.
# ruff: noqa: PLC0415


@click.command()
@click.argument("procedure", required=False)
def runbook(procedure: str | None) -> None:
    """Print the written procedure, as the playbooks carry it out, in Markdown.

    PROCEDURE is one of them; without it the whole runbook is printed.
    """
    from ansible_collections.marketsage.rollback.wrapper import runbook as writer

    if procedure is not None and procedure not in policy.procedures():
        known = ", ".join(policy.procedures())
        raise click.BadParameter(f"procedure: {procedure!r} is not one of {known}")
    click.echo(writer.written(procedure), nl=False)


@click.command()
@click.argument("document", metavar="RUNBOOK.md", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@JSON
def lint(document: Path, as_json: bool) -> None:
    """Find the shell lines of a written runbook that do not do what they seem to; exit with 5 where there are some."""
    from ansible_collections.marketsage.rollback.wrapper import lint as linter

    try:
        found = linter.findings(document.read_text())
    except UnicodeDecodeError:
        raise click.BadParameter(f"RUNBOOK.md: {document} is no text in UTF-8") from None
    if as_json:
        answers.print_json(findings=found)
    for one in [] if as_json else found:
        click.echo(f"{document}:{one['line']}: {one['command']}\n    {one['said']}\n    instead: {one['instead']}")
    sys.exit(5 if found else 0)


@click.command()
@OPTIONAL_RUN
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Where to [default: with the run's record].")  # fmt: skip
@INVENTORY
@JSON
def report(run_id: str | None, output: Path | None, inventory: Path, as_json: bool) -> None:
    """Write what is known of RUN as report.md and report.html, with a draft of the post-mortem.

    Without RUN it is the newest.
    """
    from ansible_collections.marketsage.rollback.wrapper import report as writer

    run_id = answers.newest_run(run_id, inventory)
    options.procedure_of(run_id)
    found = answers.answer("record.yml", inventory, check=True, record_state="shown", run_id=run_id)
    directory = output or Path(found["shown"]["directory"])
    try:
        files = writer.write(found["shown"], directory)
    except OSError as error:
        raise click.BadParameter(f"output: {error}") from None
    for name in files:
        answers.say(as_json, str(name), event="written", file=str(name))
