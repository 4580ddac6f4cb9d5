from __future__ import annotations

from collections.abc import Iterator
from contextvars import copy_context

import click
import pytest
from ansible_collections.marketsage.rollback.wrapper import advice
from ansible_collections.marketsage.rollback.wrapper.cli import main

RUN = "20261124T031500Z-backend-3f9a"


def typed(inventory: str, line: str) -> str:
    def say() -> str:
        advice.names(inventory)
        return advice.typed(line)

    return copy_context().run(say)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"NEXT: rollback resume {RUN}", f"NEXT: rollback resume -i /etc/prod {RUN}"),
        ("rollback run backend -s P0 -r 'it is down'", "rollback run -i /etc/prod backend -s P0 -r 'it is down'"),
        ("see: rollback outbox list", "see: rollback outbox list -i /etc/prod"),
        ("rollback sandbox up", "rollback sandbox up"),
        ("the rollback took 4 s", "the rollback took 4 s"),
    ],
)
def test_what_is_to_be_typed_has_the_inventory_that_was_named(line: str, said: str) -> None:
    assert typed("/etc/prod", line) == said
    assert typed("", line) == line


def test_an_inventory_of_any_name_is_one_word() -> None:
    assert typed("/etc/our prod\\1", "rollback status") == "rollback status -i '/etc/our prod\\1'"


def asking(group: click.Group, words: str) -> Iterator[str]:
    """The commands of a group that ask an inventory, as they are typed."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from asking(command, f"{words} {name}")
        elif command and any(parameter.name == "inventory" for parameter in command.params):
            yield f"{words} {name}"


def test_every_command_that_asks_an_inventory_is_known() -> None:
    # A drill on staging is begun by hand, never advised.
    commands = set(asking(main, "rollback")) - {"rollback drill"}
    assert {"rollback status", "rollback audit verify", "rollback outbox send"} < commands
    assert {command for command in commands if typed("/etc/prod", command) == command} == set()
