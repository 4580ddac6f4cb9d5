"""Commands that write or read documents: the runbook, a check of one, the report of a run."""
from __future__ import annotations

import click
from ansible_collections.marketsage.rollback.wrapper import policy

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
