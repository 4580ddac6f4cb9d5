"""A playbook watched by an operator: started, followed, stopped when asked; and a playbook that only answers."""
from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
from ansible_collections.marketsage.rollback.sandbox import layout
from ansible_collections.marketsage.rollback.wrapper import advice, console, launch, policy
from ansible_collections.marketsage.rollback.wrapper.scene import Scene

HELD = 20
_STOPPED = 130


def carry_out(procedure: str, inventory: Path, variables: dict[str, Any], check: bool, as_json: bool) -> Scene:
    """Run a procedure's playbook in the hands of a driver while showing it; how it ended is in the scene."""
    _refuse_no_sandbox(inventory)
    playbook = policy.playbook(procedure)
    severity = variables.get("severity")
    request = {
        "playbook": os.fspath(playbook),
        "inventory": os.fspath(inventory.resolve()),
        "named": advice.named(),
        "variables": variables,
        "check": check,
        "steps": policy.steps(playbook, only_plan=check),
        "title": f"{policy.procedures()[procedure]['title']} ({inventory.name})",
        "response_time": policy.severity(severity)["response_time"] if severity else None,
    }
    driven = launch.Driven(request)
    scene = Scene()
    view = console.view(scene, policy.on_failure(), as_json)
    with view.live:
        while scene.exit_code is None:
            try:
                _follow(driven, scene, view)
            except KeyboardInterrupt:
                _stop(driven, view)
    return scene


def watch(run: str, inventory: Path, seconds: int | None, as_json: bool) -> int:
    """Watch how it goes after a run while showing it; its exit code. Ctrl-C ends it, a dead terminal does not."""
    seconds = seconds or policy.watch_seconds()
    request = {
        "playbook": os.fspath(policy.PLAYBOOKS / "watch.yml"),
        "inventory": os.fspath(inventory.resolve()),
        "named": advice.named(),
        "variables": {"run_id": run, "watch_seconds": seconds},
        "check": False,
        "steps": {},
        "title": f"After {run}, for {console.clock(seconds)}",
        "response_time": None,
    }
    driven = launch.Driven(request)
    scene = Scene()
    view = console.view(scene, {}, as_json)
    with view.live:
        try:
            _follow(driven, scene, view)
        except KeyboardInterrupt:
            driven.kill()
            view.say("No longer watching; nothing was judged.")
            return _STOPPED
    return scene.exit_code or 0


def _follow(driven: launch.Driven, scene: Scene, view: console.View) -> None:
    """Show what happens until the end; a driver that died is an end too."""
    happening = driven.next()
    while happening is not None:
        scene.take(happening)
        view.tell(happening)
        happening = driven.next()
    if scene.exit_code is None:
        go_on = advice.typed(f"Next: rollback resume {scene.run}")
        next_step = go_on if scene.run else "It had not opened a run yet."
        view.say(f"The process that carried this out was killed. {next_step}")
        scene.exit_code = HELD if scene.run else 1


def _stop(driven: launch.Driven, view: console.View) -> None:
    """The first time at the next safe boundary; the second time the operator is asked."""
    if not driven.asked_to_stop:
        driven.ask_to_stop()
        view.say("Stopping at the next safe boundary; the step under way goes on. Press Ctrl-C again to be asked more.")
        return
    with console.paused(view):
        if sys.stdin.isatty() and click.confirm("Kill it now? A change under way may still finish by itself"):
            driven.kill()


def follow_record(directory: Path, as_json: bool) -> Scene:
    """Show a run from its record, wherever it was started, until it ends; Ctrl-C leaves it alone."""
    scene = Scene()
    view = console.view(scene, policy.on_failure(), as_json)
    with view.live:
        try:
            for happening in launch.told(directory):
                scene.take(happening)
                view.tell(happening)
        except KeyboardInterrupt:
            view.say("No longer watching; the run goes on.")
            scene.exit_code = 0
    if scene.exit_code is None:
        view.say(advice.typed(f"Nobody drives it any more. Next: rollback resume {directory.name}"))
        scene.exit_code = HELD
    return scene


def _refuse_no_sandbox(inventory: Path) -> None:
    """Whoever names no inventory means the sandbox; one that is not there has nothing to ask."""
    if inventory == policy.SANDBOX and not (directory := layout.default_directory()).exists():
        raise click.UsageError(
            f"inventory: there is no sandbox at {directory}; name where production is with -i or "
            "$ROLLBACK_INVENTORY, or bring a sandbox up: rollback sandbox up"
        )


def ask(playbook: str, inventory: Path, variables: dict[str, Any], check: bool) -> tuple[dict[str, Any], int]:
    """What the tasks of a playbook returned, put together, and its exit code; its failure is said on stderr."""
    from ansible_collections.marketsage.rollback.plugins.module_utils.ending import Ending  # noqa: PLC0415

    _refuse_no_sandbox(inventory)
    found: dict[str, Any] = {"checks": []}
    ending = Ending()

    def handle(event: dict[str, Any]) -> None:
        data = event.get("event_data") or {}
        values = data.get("res") or {}
        if event["event"] == "verbose":
            ending.heard(event["stdout"])
        if event["event"] == "runner_on_failed" and not data.get("ignore_errors"):
            ending.failed(data["host"], values)
        if "passes" in values and event["event"] in ("runner_on_ok", "runner_on_failed"):
            found["checks"] += values["results"]
        if event["event"] == "runner_on_ok":
            found.update(values)
            found.update(values.get("ansible_facts") or {})

    code = launch.run_playbook(policy.PLAYBOOKS / playbook, inventory.resolve(), variables, check, handle)
    for line in ending.said(code) if code and not found["checks"] else []:
        click.echo(advice.typed(line), err=True)
    return found, code
