"""Drills: a sandbox is broken on purpose, rolled back and scored, and compared with earlier ones."""
from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import click
from ansible_collections.marketsage.rollback.sandbox.commands import needs_extra
from ansible_collections.marketsage.rollback.wrapper import policy
from ansible_collections.marketsage.rollback.wrapper.commands import answers, running
from ansible_collections.marketsage.rollback.wrapper.commands.options import JSON

# ruff: noqa: PLC0415


@click.command()
@click.argument("kind", metavar="KIND|history")
@click.option("--scenario", help="What is broken, instead of the usual (one of: rollback sandbox break).")
@click.option("--random", "at_random", is_flag=True, help="Let chance decide what is broken.")
@click.option("--keep", is_flag=True, help="Leave the drill's sandbox running.")
@click.option("-i", "--inventory", type=click.Path(exists=True, path_type=Path),
              help="Hold it there, by what its rollback_drills says, instead of in a sandbox.")  # fmt: skip
@click.option("-y", "--yes", is_flag=True, help="Do not ask before something is broken with --inventory.")
@JSON
def drill(kind: str, inventory: Path | None, yes: bool, keep: bool, as_json: bool, **said: Any) -> None:
    """Break a sandbox of its own under load, roll it back, and say how it went, also against the last drill like it.

    KIND is backend, frontend, full-system or database; history shows the drills that were held.
    """
    needs_extra()
    from ansible_collections.marketsage.rollback.sandbox import drill as drills
    from ansible_collections.marketsage.rollback.sandbox import layout, stack
    from ansible_collections.marketsage.rollback.sandbox.processes import SandboxError
    from ansible_collections.marketsage.rollback.wrapper import drill_history, operation, scorecard

    directory = layout.directory_beside(layout.default_directory())
    history = drill_history.of_this_host()
    if kind == "history":
        answers.print_json(drills=history.all()) if as_json else scorecard.show_history(history.all())
        return
    if kind not in drills.DRILLS:
        raise click.BadParameter(f"kind: {kind!r} is not one of {', '.join(drills.DRILLS)}, history")
    chosen = drills.DRILLS[kind]
    broken = _scenario(chosen.scenarios, said["scenario"], said["at_random"])
    if inventory and (said["scenario"] or said["at_random"] or keep):
        raise click.BadParameter("inventory: it says what is broken; leave --scenario, --random and --keep out")
    if inventory:
        _agree_to_break(kind, inventory, yes)
    _prepare(history)
    runs: list[Any] = []

    def assess() -> dict[str, Any]:
        return answers.ask("assess.yml", inventory or policy.SANDBOX, check=False)[0]

    def carry_out(procedure: str, reason: str, words: dict[str, str]) -> tuple[int, str]:
        request = {**running.request(procedure, severity=chosen.severity, reason=reason), **words}
        scene = operation.carry_out(procedure, inventory or policy.SANDBOX, request, False, as_json)
        runs.append(scene)
        return int(scene.exit_code or 0), scene.run or ""

    def hold_here() -> tuple[dict[str, Any], list[Path]]:
        place = layout.Layout(directory, drills.PORT_BASE)
        os.environ["ROLLBACK_SANDBOX"] = str(directory)
        try:
            result = drills.hold(chosen, broken, place, hands)
            records = [drills.keep_record(place, scene.run) for scene in runs if scene.run]
        except SandboxError as error:
            raise click.ClickException(str(error)) from None
        finally:
            if not keep and place.directory.exists():
                stack.down(place)
        return {"kind": kind, "scenario": broken, **result}, records

    def hold_there(inventory: Path) -> tuple[dict[str, Any], list[Path]]:
        answers.answer("drill.yml", inventory, check=False, drill=kind)
        result = drills.hold_elsewhere(chosen, inventory.stem, hands)
        records = [_record(inventory, scene.run) for scene in runs if scene.run]
        return {"kind": kind, "scenario": inventory.stem, **result}, records

    hands = drills.Hands(assess, carry_out, _quiet if as_json else click.echo)
    result, records = hold_there(inventory) if inventory else hold_here()
    score = scorecard.score(result, runs, records)
    last = history.last(kind, result["scenario"])
    history.keep(score)
    print(json.dumps({**score, "last": last})) if as_json else scorecard.show(score, last)
    sys.exit(result["exit_code"])


def _prepare(history: Any) -> None:
    """What could not be kept must not be broken for it."""
    try:
        history.prepare()
    except OSError as error:
        raise click.ClickException(f"drills are kept in {error.filename}: {error.strerror}") from None


def _agree_to_break(kind: str, inventory: Path, yes: bool) -> None:
    """Go on only if the operator lets the bad release be shipped that an inventory names."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask at; a drill breaks something on purpose: say --yes")
    if not click.confirm(f"Ship what rollback_drills.{kind} of {inventory} names, and roll it back?"):
        sys.exit(130)


def _record(inventory: Path, run: str) -> Path:
    shown = answers.answer("record.yml", inventory, check=True, record_state="shown", run_id=run)["shown"]
    return Path(shown["directory"])


def _scenario(fitting: tuple[str, ...], named: str | None, at_random: bool) -> str:
    """What is broken: what was named, what chance says, or the usual."""
    if named and at_random:
        raise click.BadParameter("scenario: either name one or say --random")
    if named and named not in fitting:
        raise click.BadParameter(f"scenario: {named!r} is not one of {', '.join(fitting)}, which this drill can mend")
    return named or (random.choice(fitting) if at_random else fitting[0])


def _quiet(_line: str) -> None:
    pass
