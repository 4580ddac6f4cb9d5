"""Options that several commands have."""
from __future__ import annotations

from pathlib import Path

import click
from ansible_collections.marketsage.rollback.wrapper import policy

INVENTORY = click.option(
    "-i",
    "--inventory",
    type=click.Path(exists=True, path_type=Path),
    envvar="ROLLBACK_INVENTORY",
    default=policy.SANDBOX,
    help="Where things are [default: $ROLLBACK_INVENTORY, else the sandbox].",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Machine-readable output, versioned.")
