"""What is advised from what was measured and what failed."""
from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.action import rollback_assess
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


CHECKLISTS: dict[str, Any] = {
    "backend": [{"name": "API health"}],
    "frontend": [{"name": "Main app"}, {"name": "Contacts through the proxy"}],
    "frontend_gate": [{"name": "Main app"}],
}
RISE = 1_000_000
TRIGGER = {"name": "Error rate", "severity": "P1", "unit": "%", "query": "errors", "above": 5}


@pytest.mark.parametrize(
    ("failing", "ages", "rises", "procedure"),
    [
        # What fails through the proxy may be the API's fault, or the proxy's.
        ("Contacts through the proxy", (10, 300), True, "backend"),
        ("Contacts through the proxy", (300, 10), True, "frontend"),
        ("Contacts through the proxy", (10, 300), False, "frontend"),
        # What needs no other service is its own fault.
        ("API health", (300, 10), True, "backend"),
        ("Main app", (10, 300), True, "frontend"),
        # What is only measured is the fault of whatever went live before.
        ("", (10, 20), True, "full_system"),
        ("", (10, 9000), True, "backend"),
    ],
)
def test_who_is_accused(
    monkeypatch: pytest.MonkeyPatch, failing: str, ages: tuple[int, int], rises: bool, procedure: str
) -> None:
    said = {**TRIGGER, "bound": "above", "limit": 5, "value": 9, "exceeded": rises, "since": RISE if rises else None}
    monkeypatch.setattr(assessment, "measure", lambda *_asked: said)
    live = dict(zip(("api-1", "railway"), ages, strict=True))
    found = rollback_assess.assess({
        "triggers": {"measured": [TRIGGER], "window": 60, "step": 5, "deploy_within": 900, "health": {"other": "P1"}},
        "prometheus_url": "http://127.0.0.1:9090",
        "results": [{"name": failing, "status": "failed", "evidence": "answered 500"}] if failing else [],
        "hosts": {"backend": ["api-1"], "frontend": ["railway"]},
        "checklists": CHECKLISTS,
        "reports": {
            host: {"live": {"commit": host, "since": datetime.fromtimestamp(RISE - ago, UTC).isoformat()}}
            for host, ago in live.items()
        },
        "policy": {"severities": {"P1": {"action": "Evaluate then rollback"}}},
    })  # fmt: skip
    assert found["procedure"] == procedure, found
