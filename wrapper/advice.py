"""The commands that a screen tells the operator to type, so that they reach the inventory that is meant."""
from __future__ import annotations

import re
import shlex
from contextvars import ContextVar

_named: ContextVar[str] = ContextVar("named", default="")

_ASKS_AN_INVENTORY = re.compile(
    r"\brollback (status|assess|plan|run|approve|attach|resume|takeover|abort|undo|watch|history|show|verify|oncall"
    r"|doctor|audit verify|mark|freeze|unfreeze|ack|outbox (list|send|drop)|report)\b"
)


def names(inventory: str) -> None:
    """From now on commands need `-i INVENTORY`, as it was named on the command line."""
    _named.set(inventory)


def named() -> str:
    return _named.get()


def typed(line: str) -> str:
    """The line with the inventory in each command, where it was named on the command line."""
    said = f" -i {shlex.quote(named())}" if named() else ""
    return _ASKS_AN_INVENTORY.sub(lambda command: command[0] + said, line)
