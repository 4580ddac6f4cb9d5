"""Options and checks that several commands share."""
from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from ansible_collections.marketsage.rollback.plugins.module_utils import validate
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import RollbackError
from ansible_collections.marketsage.rollback.wrapper import advice, completion, policy
from click.core import ParameterSource


def _use(context: click.Context, parameter: click.Parameter, inventory: Path) -> Path:
    if context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE:
        advice.names(str(inventory))
    used: Path = checked(policy.use, inventory)
    return used


INVENTORY = click.option(
    "-i",
    "--inventory",
    type=click.Path(exists=True, path_type=Path),
    envvar="ROLLBACK_INVENTORY",
    default=policy.SANDBOX,
    callback=_use,
    help="Where things are [default: $ROLLBACK_INVENTORY, else the sandbox].",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Machine-readable output, versioned.")
REASON = click.option("-r", "--reason", required=True, help="Why, in one line; it goes into the record.")
RUN = click.argument("run_id", metavar="RUN", shell_complete=completion.runs)
OPTIONAL_RUN = click.argument("run_id", metavar="[RUN]", required=False, shell_complete=completion.runs)
WITHOUT = click.option(
    "--without", metavar="HOST,HOST", default="", help="Hosts to leave out: without requests, and as they are."
)
WORDS = click.option("-e", "--extra-vars", "words", multiple=True, metavar="NAME=VALUE", help="A variable of SERVICE.")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def checked(check: Callable[..., Any], *arguments: Any) -> Any:
    """An operator's word, or one clear line about it."""
    try:
        return check(*arguments)
    except RollbackError as error:
        raise click.BadParameter(str(error)) from None


def seconds(text: str, name: str) -> int:
    """Seconds, from a time such as 90m."""
    said = re.fullmatch(r"(\d{1,5})([smhd])", text)
    if not said or not int(said[1]):
        raise click.BadParameter(f"{name}: {text!r} is not a time such as 30s, 90m, 2h or 1d")
    return int(said[1]) * _UNITS[said[2]]


def procedure_of(run_id: str) -> str:
    """The procedure that a run carries out; its id says it."""
    procedure: str = checked(validate.run_id, run_id).split("-")[1]
    if procedure not in policy.procedures():
        raise click.BadParameter(f"run_id: {run_id} is a run of {procedure!r}, which this version does not know")
    return procedure


def said_words(procedure: str, words: tuple[str, ...]) -> dict[str, str]:
    """The variables of a procedure that the operator set."""
    allowed = policy.words(procedure)
    said = dict(word.partition("=")[::2] for word in words)
    for name in said:
        if name not in allowed:
            known = ", ".join(allowed) or "none"
            raise click.BadParameter(f"extra-vars: {name!r} is no variable of {procedure}; it has {known}")
    return said
