"""What a team writes as data: the collection's own passes, and one wrong word is told with its place."""
from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput
from ansible_collections.marketsage.rollback.plugins.plugin_utils import forms

COLLECTION = Path(__file__).resolve().parents[3]
OWN = COLLECTION / "playbooks/group_vars/all"
EXAMPLE = COLLECTION / "inventories/example/group_vars/all"
# What is left to Ansible's templating is no number yet.
TEMPLATED = {"window": 60}


def variables(directory: Path) -> dict[str, Any]:
    read: dict[str, Any] = {}
    for path in directory.glob("*.yml"):
        read |= yaml.safe_load(path.read_text())
    if "rollback_watch" in read:
        read["rollback_watch"] |= TEMPLATED
    return read


@pytest.mark.parametrize("directory", [OWN, EXAMPLE], ids=["own", "example"])
def test_what_the_collection_brings_has_its_form(directory: Path) -> None:
    forms.check_known(variables(directory))


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("rollback_policy.severities.P2.approval", "requierd", "one of: none, preferred, required, got: requierd"),
        ("rollback_policy.severities.P3.rollback", "refused", "one of: at_once, evaluate, ask, refuse, got: refused"),
        ("rollback_policy.severities.P9", {}, "unknown: rollback_policy.severities.P9. Supported"),
        ("rollback_policy.gate.passes", "three", "argument 'passes' is of type str"),
        ("rollback_policy.rolling.batch", "5", r"rollback_policy.rolling.batch: '5' must be 5"),
        ("rollback_policy.budgets.Verify health", "1m", "argument 'Verify health' is of type str"),
        ("rollback_policy.announce.tell.P0", "alerts", r"announce.tell.P0: 'alerts' must be \['alerts'\]"),
        ("rollback_policy.severities", "P0", "value of 'severities' must be of type dict"),
        ("rollback_catalogue.backend.stop_trafic", True, "unknown: rollback_catalogue.backend.stop_trafic"),
        ("rollback_procedures.backup.severity", "P7", "must be one of: P0, P1, P2, P3, got: P7"),
        ("rollback_components.auth.paths", "src", r"rollback_components.auth.paths: 'src' must be \['src'\]"),
        ("rollback_checklists.backend", [{"name": "up", "reqests": []}], "unknown: rollback_checklists.backend.reqe"),
        ("rollback_triggers.health.other", "P8", "must be one of: P0, P1, P2, P3, got: P8"),
        ("rollback_watch.times", "twice", "argument 'times' is of type str"),
    ],
)
def test_a_wrong_word_is_told_with_its_place(place: str, value: Any, said: str) -> None:
    name, *keys, last = place.split(".")
    wrong = copy.deepcopy(variables(OWN)[name])
    row = wrong
    for key in keys:
        row = row[key]
    row[last] = value
    with pytest.raises(BadInput, match=said):
        forms.check(name, wrong)


def test_what_is_missing_is_told_with_its_place() -> None:
    wrong = copy.deepcopy(variables(OWN)["rollback_policy"])
    del wrong["severities"]["P2"]["response_time"]
    with pytest.raises(BadInput, match=r"missing required arguments: response_time found in .* severities -> P2"):
        forms.check("rollback_policy", wrong)
