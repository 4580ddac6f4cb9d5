"""rollback: put a broken system back on its last good release."""
from __future__ import annotations

from importlib import import_module

import click

_HERE = "ansible_collections.marketsage.rollback.wrapper.commands"
# Each command and the module that has it, in the order of an incident.
_COMMANDS = {
    **dict.fromkeys(("status", "assess"), f"{_HERE}.looking"),
    **dict.fromkeys(("plan", "run"), f"{_HERE}.running"),
    "approve": f"{_HERE}.deciding",
    **dict.fromkeys(("attach", "resume", "takeover", "abort", "undo"), f"{_HERE}.running"),
    **dict.fromkeys(("watch", "history", "show", "verify", "oncall", "doctor", "audit"), f"{_HERE}.looking"),
    **dict.fromkeys(("mark", "freeze", "unfreeze"), f"{_HERE}.deciding"),
    **dict.fromkeys(("ack", "outbox"), f"{_HERE}.telling"),
    **dict.fromkeys(("report", "runbook", "lint"), f"{_HERE}.documents"),
    "drill": f"{_HERE}.drilling",
    "sandbox": "ansible_collections.marketsage.rollback.sandbox.commands",
}


class _LazyGroup(click.Group):
    """Loads a command when it is asked for, so that --help stays quick."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(_COMMANDS[name]), name)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="marketsage-rollback")
def main() -> None:
    """Put a broken production system back on its last good release."""
