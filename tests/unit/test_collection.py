"""The collection's own metadata agrees with its modules."""
from __future__ import annotations

from pathlib import Path

import yaml

COLLECTION = Path(__file__).resolve().parents[2]


def test_the_action_group_has_every_module_that_takes_a_run() -> None:
    documented = {path.stem: path.read_text() for path in (COLLECTION / "plugins/modules").glob("*.py")}
    takes_a_run = sorted(name for name, text in documented.items() if "- marketsage.rollback.run\n" in text)
    assert takes_a_run
    assert yaml.safe_load((COLLECTION / "meta/runtime.yml").read_text())["action_groups"]["rollback"] == takes_a_run
