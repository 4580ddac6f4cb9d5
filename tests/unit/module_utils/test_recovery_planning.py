from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils import (
    data_loss,
    planning,
    recovery_planning,
    table_contents,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Refused

BACKUP = {
    "id": "shop-20261125T031500Z-3f9a",
    "sha256": "ab",
    "taken_at": "2026-11-25T03:15:00.000Z",
    "proven_at": "2026-11-25T03:16:00.000Z",
    "size": 2_000_000,
    "rows": 40,
    "age": 3600,
    "damage": "",
}
LOST = {"known": True, "why": "", "rows": 36, "tables": {"public.Order": {"lost": 36, "changed": 2, "returned": 0}}}
NOTHING = {"known": True, "why": "", "rows": 0, "tables": {}}
UNKNOWN = {"known": False, "why": "no connections are allowed", "rows": 0, "tables": {}}


def found(**changes: Any) -> dict[str, Any]:
    return {
        "backup": BACKUP, "database": "shop", "loss": LOST, "migrations_lost": 0, "restored_before": False, **changes,
    }  # fmt: skip


def plan(found: dict[str, Any] | None, accept_loss: str = "", anyway: bool = False) -> dict[str, Any]:
    release = {"release": "b" * 12, "commit": "b" * 40}
    recovery = recovery_planning.part(found, accept_loss, anyway)
    stays = not recovery_planning.restores(recovery)
    reports = {"api-1": {"live": release, "candidates": []}}
    kept = planning.keep_service("backend", {"stop_traffic": True}, hosts=["api-1"], reports=reports, stays=stays)
    return {"services": {"backend": kept}, "balancers": [], "databases": ["db"], **recovery}


def test_loss_needs_an_agreement_and_the_plan_says_which() -> None:
    refusal = recovery_planning.refusal(plan(found()), found(), 300)
    assert refusal is not None
    assert "36 rows that were acknowledged after the backup" in refusal["msg"]
    assert "1 h 0 min old" in refusal["msg"]
    assert refusal["advice"].endswith("-e accept_loss=39@shop-20261125T031500Z-3f9a")


@pytest.mark.parametrize(
    ("loss", "said", "agreed"),
    [
        (LOST, "36@shop-20261125T031500Z-3f9a", True),
        (LOST, "35@shop-20261125T031500Z-3f9a", False),
        (LOST, "36@another", False),
        (LOST, "unknown@shop-20261125T031500Z-3f9a", True),
        (UNKNOWN, "36@shop-20261125T031500Z-3f9a", False),
        (UNKNOWN, "unknown@shop-20261125T031500Z-3f9a", True),
        (NOTHING, "", True),
        (UNKNOWN, "", False),
    ],
)
def test_an_agreement_covers_what_was_shown_and_no_more(loss: dict[str, Any], said: str, agreed: bool) -> None:
    seen = found(loss=loss)
    assert (recovery_planning.refusal(plan(seen, said), seen, 300) is None) is agreed


@pytest.mark.parametrize("said", ["all", "36", "-1@x", "36@--x", "1e3@x", "36@x y", "9" * 16 + "@x"])
def test_an_agreement_in_other_words_is_bad_input(said: str) -> None:
    with pytest.raises(BadInput, match=r"^accept_loss: "):
        data_loss.agreement(said)


def test_a_database_that_came_from_this_backup_stays_unless_told() -> None:
    stays = plan(found(restored_before=True))
    assert not planning.changes_something(stays)
    assert stays["services"]["backend"]["action"] == "none"
    again = plan(found(restored_before=True), anyway=True)
    assert planning.changes_something(again)
    assert {host["name"] for host in planning.planned_hosts(again)} == {"api-1", "db"}


def test_what_cannot_be_restored_is_refused_when_planning() -> None:
    with pytest.raises(Refused, match="is damaged: 1 is missing"):
        plan(found(backup={**BACKUP, "damage": "1 is missing"}))
    with pytest.raises(Refused, match="lacks 2 migrations"):
        plan(found(migrations_lost=2))
    with pytest.raises(BadInput, match="no proven backup"):
        plan({"msg": "no proven backup", "exit_code": 2})
    with pytest.raises(Refused, match="could be read"):
        plan({})


def test_the_release_stays_but_must_be_proved_and_the_database_open() -> None:
    recovering = plan(found())
    proved = {"api-1": {"passed": True, "release": "b" * 12}}
    complaints = planning.verify_reports(recovering, proved)
    assert complaints == ["db: the database is not proved to be open again"]
    assert planning.verify_reports(recovering, {**proved, "db": {"fenced": False}}) == []
    assert planning.changed_services(recovering) == []


def test_a_planned_backup_must_be_proven() -> None:
    backing_up = {"services": {}, "balancers": [], "databases": ["db"], "takes_backup": True}
    assert planning.changes_something(backing_up)
    assert planning.verify_reports(backing_up, {}) == ["db: no backup is proven"]
    assert planning.verify_reports(backing_up, {"db": {"backup": {"state": "proven"}}}) == []


def test_differences_of_sorted_rows() -> None:
    now = [b"1\ta", b"2\tb", b"4\td", b"5\tx", b"5\tx"]
    then = [b"1\ta", b"2\tB", b"3\tc", b"5\tx"]
    assert table_contents.difference(now, then) == {"lost": 2, "returned": 1, "changed": 1}
    assert table_contents.difference([], then) == {"lost": 0, "returned": 4, "changed": 0}
