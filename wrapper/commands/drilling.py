"""Drills: a sandbox is broken on purpose, rolled back and scored, and compared with earlier ones."""
from __future__ import annotations

import json
import os
import random
import sys
from typing import Any

import click
from ansible_collections.marketsage.rollback.wrapper import policy
from ansible_collections.marketsage.rollback.wrapper.commands import answers, running
from ansible_collections.marketsage.rollback.wrapper.commands.options import JSON

# ruff: noqa: PLC0415


@click.command()
@click.argument("kind", metavar="KIND|history")
@click.option("--scenario", help="What is broken, instead of the usual (one of: rollback sandbox break).")
@click.option("--random", "at_random", is_flag=True, help="Let chance decide what is broken.")
@click.option("--keep", is_flag=True, help="Leave the drill's sandbox running.")
@JSON
def drill(kind: str, scenario: str | None, at_random: bool, keep: bool, as_json: bool) -> None:
    """Break a sandbox of its own under load, roll it back, and say how it went, also against the last drill like it.

    KIND is backend, frontend, full-system or database; history shows the drills that were held.
    """
    from ansible_collections.marketsage.rollback.sandbox import drill as drills
    from ansible_collections.marketsage.rollback.sandbox import layout, stack
    from ansible_collections.marketsage.rollback.sandbox.processes import SandboxError
    from ansible_collections.marketsage.rollback.wrapper import drill_history, operation, scorecard

    directory = drills.directory_beside(layout.default_directory())
    history = drill_history.DrillHistory(drills.records_beside(directory))
    if kind == "history":
        answers.print_json(drills=history.all()) if as_json else scorecard.show_history(history.all())
        return
    if kind not in drills.DRILLS:
        raise click.BadParameter(f"kind: {kind!r} is not one of {', '.join(drills.DRILLS)}, history")
    chosen = drills.DRILLS[kind]
    broken = _scenario(chosen.scenarios, scenario, at_random)
    place = layout.Layout(directory, drills.PORT_BASE)
    os.environ["ROLLBACK_SANDBOX"] = str(directory)
    runs: list[Any] = []

    def assess() -> dict[str, Any]:
        return answers.ask("assess.yml", policy.SANDBOX, check=False)[0]

    def carry_out(procedure: str, reason: str, words: dict[str, str]) -> tuple[int, str]:
        request = {**running.request(procedure, severity=chosen.severity, reason=reason), **words}
        scene = operation.carry_out(procedure, policy.SANDBOX, request, False, as_json)
        runs.append(scene)
        return int(scene.exit_code or 0), scene.run or ""

    try:
        result = drills.hold(chosen, broken, place, drills.Hands(assess, carry_out, _quiet if as_json else click.echo))
        records = [drills.keep_record(place, scene.run) for scene in runs if scene.run]
        score = scorecard.score({"kind": kind, "scenario": broken, **result}, runs, records)
        last = history.last(kind, broken)
        history.keep(score)
        print(json.dumps({**score, "last": last})) if as_json else scorecard.show(score, last)
    except SandboxError as error:
        raise click.ClickException(str(error)) from None
    finally:
        if not keep and place.directory.exists():
            stack.down(place)
    sys.exit(result["exit_code"])


def _scenario(fitting: tuple[str, ...], named: str | None, at_random: bool) -> str:
    """What is broken: what was named, what chance says, or the usual."""
    if named and at_random:
        raise click.BadParameter("scenario: either name one or say --random")
    if named and named not in fitting:
        raise click.BadParameter(f"scenario: {named!r} is not one of {', '.join(fitting)}, which this drill can mend")
    return named or (random.choice(fitting) if at_random else fitting[0])


def _quiet(_line: str) -> None:
    pass
