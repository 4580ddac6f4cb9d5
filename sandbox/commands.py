"""rollback sandbox: a miniature of production on this machine, to break and to roll back."""
from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import click
from ansible_collections.marketsage.rollback.sandbox import layout as where

# Everything else is imported where it is used, so that --help stays quick.
# ruff: noqa: PLC0415

Command = TypeVar("Command", bound=Callable[..., Any])

_DIRECTORY = click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=where.default_directory,
    show_default="$ROLLBACK_SANDBOX, else one per user",
    help="Where the sandbox keeps everything it has.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def sandbox() -> None:
    """A miniature of production on this machine, to break and to roll back."""


def needs_extra() -> None:
    """One clear line where what only the sandbox needs is not installed."""
    if find_spec("psutil") is None:
        raise click.ClickException("the sandbox needs more: pipx install --force 'marketsage-rollback[sandbox]'")


def _plainly(command: Command) -> Command:
    """End a command that fails with one clear message and its exit code."""

    @functools.wraps(command)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        needs_extra()
        from ansible_collections.marketsage.rollback.sandbox.processes import SandboxError

        try:
            return command(*arguments, **options)
        except SandboxError as error:
            click.echo(f"Error: {error}", err=True)
            raise click.exceptions.Exit(error.exit_code) from None

    return wrapped  # type: ignore[return-value]


def _steps() -> Callable[[str], None]:
    """Tells each step on stderr, with the seconds since now."""
    begin = time.monotonic()
    return lambda what: click.echo(f"{time.monotonic() - begin:6.1f} s  {what}", err=True)


def _show(result: dict[str, Any], as_json: bool, text: str) -> None:
    click.echo(json.dumps(result, indent=2) if as_json else text)


@sandbox.command()
@_DIRECTORY
@click.option("--port-base", type=click.IntRange(1024, 65000), default=where.DEFAULT_PORT_BASE, show_default=True)
@click.option(
    "--machines",
    type=click.IntRange(0),
    default=0,
    help="Backend hosts with a network of their own, reached by SSH; needs root. [default: two directories]",
)
@_JSON
@_plainly
def up(directory: Path, port_base: int, machines: int, as_json: bool) -> None:
    """Bring the sandbox up; nothing happens when it is up already."""
    from ansible_collections.marketsage.rollback.sandbox import stack, state

    try:
        layout = where.Layout(directory.absolute(), port_base, machines)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    started = stack.up(layout, _steps())
    layout = stack.at(layout.directory)
    front = layout.url("front")
    text = f"The sandbox {'is up' if started else 'was up already'}: {front} (Host: api., app. or admin.marketsage.com)"
    if layout.machines:
        text += f"\nIts hosts are named by the inventory {layout.inventory}."
    _show({"started": started, **state.read(layout)}, as_json, text)


@sandbox.command()
@_DIRECTORY
@_JSON
@_plainly
def status(directory: Path, as_json: bool) -> None:
    """Show what runs, which releases are live, and whether the maintenance page is up."""
    from ansible_collections.marketsage.rollback.sandbox import stack, state

    layout = stack.at(directory.absolute())
    seen = state.read(layout)
    _show(seen, as_json, _described(seen, state.refs(layout)))


def _described(seen: dict[str, Any], refs: dict[str, str]) -> str:
    def named(release: str) -> str:
        return f"{release} ({refs.get(release, 'unknown')})"

    lines = [f"{seen['front']}  {seen['directory']}"]
    lines += [f"{part:9} {pid or 'not running'}" for part, pid in seen["processes"].items()]
    for name, host in seen["hosts"].items():
        answering = ", ".join(named(one) for one in host["answering"]) or "nothing answers"
        lines.append(f"{name:9} {answering}, health {'/'.join(map(str, host['health'])) or '-'}")
    railway = seen["railway"]
    lines.append(f"railway   {named(railway['release']) if railway else 'nothing is live'}")
    lines.append(f"maintenance page {'up' if seen['maintenance'] else 'not up'}")
    return "\n".join([*lines, f"contacts {seen['rows']['contacts']}, sessions {seen['rows']['sessions']}"])


@sandbox.command("break")
@click.argument("scenario", required=False)
@_DIRECTORY
@_JSON
@_plainly
def break_(scenario: str | None, directory: Path, as_json: bool) -> None:
    """Ship a bad release the way a deploy would; without SCENARIO, list what there is."""
    from ansible_collections.marketsage.rollback.sandbox import scenarios, stack

    if scenario is None:
        known = scenarios.all_scenarios().values()
        _show(
            {one.name: {"severity": one.severity, "description": one.description} for one in known},
            as_json,
            "\n".join(f"{one.name:22} {one.severity}  {one.description}" for one in known),
        )
        return
    result = scenarios.break_(stack.running(directory.absolute()), scenario, _steps())
    live = [f"{service} {one['ref']} ({one['release']}) is live" for service, one in result["deployed"].items()]
    told = ", ".join([*(live or result["seen"]), f"{result['acknowledged']} rows acknowledged meanwhile"])
    _show(result, as_json, f"Broken, {result['severity']}: {told}.")


@sandbox.command()
@click.argument("service", type=click.Choice(["backend", "frontend"]))
@click.argument("ref")
@_DIRECTORY
@_JSON
@_plainly
def deploy(service: str, ref: str, directory: Path, as_json: bool) -> None:
    """Ship the release REF of SERVICE the way a deploy would, its migrations included."""
    from ansible_collections.marketsage.rollback.sandbox import deploy as deploys
    from ansible_collections.marketsage.rollback.sandbox import stack

    release = deploys.deploy(stack.running(directory.absolute()), service, ref)
    shown = {"service": service, "release": release.id, "commit": release.commit, "ref": release.ref}
    _show(shown, as_json, f"{service} {release.ref} ({release.id}) is live.")


@sandbox.command()
@_DIRECTORY
@_JSON
@_plainly
def reset(directory: Path, as_json: bool) -> None:
    """Put the sandbox back as it was after up."""
    from ansible_collections.marketsage.rollback.sandbox import stack, state

    layout = stack.at(directory.absolute())
    stack.reset(layout, _steps())
    _show(state.read(layout), as_json, "The sandbox is as it was after up.")


@sandbox.command()
@_DIRECTORY
@click.option("--rate", type=click.FloatRange(0.1, 500), default=100, show_default=True, help="Requests per second.")
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=30, show_default=True)
@click.option("--requests", type=click.IntRange(1), help="Stop after so many.")
@click.option("--service", "services", type=click.Choice(["api", "app", "admin"]), multiple=True, help="[default: all]")
@_JSON
@_plainly
def load(
    *, directory: Path, rate: float, seconds: float, requests: int | None, services: tuple[str, ...], as_json: bool
) -> None:
    """Send requests and writes, classify every answer, and look whether every acknowledged row is there."""
    from ansible_collections.marketsage.rollback.sandbox import stack
    from ansible_collections.marketsage.rollback.sandbox.load import PATHS, Load, missing_rows

    layout = stack.running(directory.absolute())
    traffic = Load(layout, rate=rate, seconds=seconds, requests=requests, services=services or tuple(PATHS))
    try:
        result = traffic.start().wait()
    except KeyboardInterrupt:
        result = traffic.stop()
    lost = missing_rows(layout, traffic.record.acknowledged)
    kinds = ", ".join(f"{kind} {count}" for kind, count in result["kinds"].items())
    text = f"{result['requests']} requests: {kinds} {result['errors'] or ''}\n"
    text += f"{result['acknowledged']} rows acknowledged, {len(lost)} lost"
    _show({**result, "lost": lost}, as_json, text)
    if lost:
        raise click.exceptions.Exit(1)


@sandbox.command()
@_DIRECTORY
@click.option("--keep", is_flag=True, help="Keep the directory with its logs.")
@_JSON
@_plainly
def down(directory: Path, keep: bool, as_json: bool) -> None:
    """End every process of the sandbox and remove its directory."""
    from ansible_collections.marketsage.rollback.sandbox import stack

    directory = directory.absolute()
    if not directory.exists():
        _show({"ended": 0}, as_json, f"There is no sandbox in {directory}.")
        return
    ended = stack.down(stack.at(directory), keep)
    _show({"ended": ended}, as_json, f"The sandbox is down: {ended} processes ended, none left.")
