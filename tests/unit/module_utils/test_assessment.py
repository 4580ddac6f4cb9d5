"""What is advised from what was measured and what failed."""
from __future__ import annotations

import shlex

import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils import assessment

ERRORS = {"name": "Error rate", "severity": "P1", "unit": "% of all answers", "bound": "above", "limit": 5}


@pytest.mark.parametrize(
    ("services", "evidence", "procedure", "reason"),
    [
        (["backend"], {**ERRORS, "value": 43.2}, "backend", "Error rate: above 5 % of all answers"),
        (["backend"], {**ERRORS, "value": 12.1}, "backend", "Error rate: above 5 % of all answers"),
        (["frontend"], {"name": "It's up", "severity": "P1", "status": "failed"}, "frontend", "failed: It's up"),
        (["backend", "frontend"], ERRORS, "full_system", "Error rate: above 5 % of all answers"),
    ],
)
def test_the_reason_does_not_change_with_what_is_measured(
    services: list[str], evidence: dict[str, object], procedure: str, reason: str
) -> None:
    advice = assessment.advice(services, "P1", [evidence])
    assert (advice["procedure"], advice["reason"]) == (procedure, reason)
    assert shlex.split(advice["command"]) == ["rollback", "run", procedure, "-s", "P1", "-r", reason]


def test_where_nothing_is_bad_nothing_is_advised() -> None:
    assert set(assessment.advice(["backend"], None, []).values()) == {None}
