"""The record that survives kills: journal, host lock with fence, and the control host's run lock."""
from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils import control as control_module
from ansible_collections.marketsage.rollback.plugins.module_utils.approval import Approval
from ansible_collections.marketsage.rollback.plugins.module_utils.control import Control
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Refused, RollbackError, Unknown
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import Journal
from ansible_collections.marketsage.rollback.plugins.module_utils.run import Run

RUN = "20261124T031500Z-backend-3f9a"
OTHER = "20261124T031600Z-backend-0001"
PLAN = {"environment": "test", "procedure": "backend", "severity": "P0", "reason": "health answers 500", "services": {}}


def change(state_dir: Path, run: str = RUN, fence: int = 1, outcome: dict[str, Any] | None = None) -> None:
    with Run(run, fence, str(state_dir)).change("step", {"to": "x"}) as changing:
        changing.outcome = outcome or {}


def entries(state_dir: Path, run: str = RUN) -> list[dict[str, Any]]:
    return Journal(str(state_dir / "journal" / f"{run}.jsonl")).entries()


def test_a_change_is_journalled_before_and_after(tmp_path: Path) -> None:
    with Run(RUN, 1, str(tmp_path)).change("step", {"to": "x"}) as changing:
        assert [entry["kind"] for entry in entries(tmp_path)] == ["intent"]
        changing.outcome = {"release": "x"}
    assert [(entry["kind"], entry["data"]) for entry in entries(tmp_path)] == [
        ("intent", {"to": "x"}),
        ("outcome", {"release": "x"}),
    ]


def test_a_failed_change_says_so_in_the_journal(tmp_path: Path) -> None:
    with pytest.raises(RollbackError), Run(RUN, 1, str(tmp_path)).change("step", {}):
        raise RollbackError("it does not answer")
    assert [entry["kind"] for entry in entries(tmp_path)] == ["intent", "failed"]


def test_a_torn_last_line_is_no_entry_and_is_written_over(tmp_path: Path) -> None:
    change(tmp_path)
    journal = tmp_path / "journal" / f"{RUN}.jsonl"
    with journal.open("a") as file:
        file.write('{"seq": 3, "torn')
    change(tmp_path)
    assert [entry["seq"] for entry in entries(tmp_path)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "tamper", [lambda lines: lines[1:], lambda lines: [lines[0].replace("step", "pets"), lines[1]]]
)
def test_an_altered_or_missing_entry_is_noticed(tmp_path: Path, tamper: Any) -> None:
    change(tmp_path)
    journal = tmp_path / "journal" / f"{RUN}.jsonl"
    journal.write_text("".join(f"{line}\n" for line in tamper(journal.read_text().splitlines())))
    with pytest.raises(Unknown, match="altered or an entry is missing"):
        entries(tmp_path)


def test_a_run_that_was_overtaken_can_change_nothing_more(tmp_path: Path) -> None:
    change(tmp_path, OTHER, fence=2)
    with pytest.raises(Refused, match=f"overtaken here by run {OTHER}"):
        change(tmp_path, RUN, fence=1)
    assert not (tmp_path / "journal" / f"{RUN}.jsonl").exists()


def test_nothing_is_changed_where_the_journal_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / f"{RUN}.jsonl").mkdir()
    done = []
    with pytest.raises(OSError), Run(RUN, 1, str(tmp_path)).change("step", {}):
        done.append("changed")
    assert done == []


def hold_lock(state_dir: str, ready: Any) -> None:
    with Run(RUN, 1, state_dir).change("step", {}):
        ready.set()
        time.sleep(60)


def test_a_kill_frees_the_host_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible_collections.marketsage.rollback.plugins.module_utils.run._LOCK_SECONDS", 0.2)
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=hold_lock, args=(str(tmp_path), ready))
    holder.start()
    assert ready.wait(10)
    with pytest.raises(Refused, match="still held"):
        change(tmp_path)
    os.kill(holder.pid or 0, signal.SIGKILL)
    holder.join()
    change(tmp_path)
    assert [entry["kind"] for entry in entries(tmp_path)] == ["intent", "intent", "outcome"]


@pytest.fixture
def control(tmp_path: Path) -> Control:
    return Control(str(tmp_path / "control"))


def test_only_one_run_is_open_at_a_time(control: Control) -> None:
    control.acquire(RUN, PLAN, "ann", os.getpid())
    with pytest.raises(Refused, match=f"run {RUN} of ann@"):
        control.acquire(OTHER, PLAN, "bob", os.getpid())


def test_an_interrupted_run_is_opened_again_with_its_plan_and_a_higher_fence(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = control.acquire(RUN, PLAN, "ann", os.getpid())
    monkeypatch.setattr(control_module, "process_start", lambda pid: None)
    again = control.acquire(RUN, {**PLAN, "reason": "another plan"}, "ann", os.getpid())
    assert again["fence"] == first["fence"] + 1
    assert again["since"] == first["since"]
    assert control.plan(RUN) == PLAN


def test_a_run_can_take_the_place_of_an_interrupted_one_and_of_no_other(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.acquire(RUN, PLAN, "ann", os.getpid())
    monkeypatch.setattr(control_module, "process_start", lambda pid: None)
    with pytest.raises(Refused, match="was interrupted"):
        control.acquire(OTHER, {**PLAN, "instead_of": "20260101T000000Z-backend-0000"}, "bob", os.getpid())
    record = control.acquire(OTHER, {**PLAN, "instead_of": RUN}, "bob", os.getpid())
    assert (control.outcome(RUN) or {})["state"] == "superseded"
    assert (control.holder() or {})["run"] == OTHER
    assert record["fence"] == 2


def test_a_run_whose_process_lives_is_not_opened_twice(control: Control) -> None:
    control.acquire(RUN, PLAN, "ann", os.getpid())
    with pytest.raises(Refused, match=f"driven by process {os.getpid()}"):
        control.acquire(RUN, PLAN, "ann", os.getpid())


def test_the_same_request_finds_its_interrupted_run_and_no_other_does(control: Control) -> None:
    control.acquire(RUN, PLAN, "ann", os.getpid())
    request = {key: PLAN[key] for key in ("environment", "procedure", "severity", "reason")}
    assert control.interrupted("ann", request) == RUN
    assert control.interrupted("bob", request) is None
    assert control.interrupted("ann", {**request, "reason": "something else"}) is None


def test_a_closed_run_frees_the_lock_and_stays_closed(control: Control) -> None:
    record = control.acquire(RUN, PLAN, "ann", os.getpid())
    control.release(RUN, record["fence"], {"state": "done"})
    assert control.holder() is None
    assert control.outcome(RUN) == {"state": "done"}
    assert control.acquire(OTHER, PLAN, "bob", os.getpid())["fence"] == record["fence"] + 1


def test_killed_between_outcome_and_unlock_the_lock_counts_as_free(control: Control) -> None:
    record = control.acquire(RUN, PLAN, "ann", os.getpid())
    held = Path(control.path("held.json")).read_text()
    control.release(RUN, record["fence"], {"state": "done"})
    Path(control.path("held.json")).write_text(held)
    assert json.loads(held)["run"] == RUN
    assert control.holder() is None


@pytest.fixture
def interrupted(control: Control, monkeypatch: pytest.MonkeyPatch) -> Control:
    """A run of ann's whose process is gone."""
    control.acquire(RUN, PLAN, "ann", os.getpid())
    monkeypatch.setattr(control_module, "process_start", lambda pid: None)
    return control


def test_the_run_of_somebody_else_is_taken_over_for_a_reason_alone(interrupted: Control) -> None:
    with pytest.raises(Refused, match="is not yours"):
        interrupted.acquire(RUN, PLAN, "bob", os.getpid())
    record = interrupted.acquire(RUN, PLAN, "bob", os.getpid(), takeover="ann lost her connection")
    assert (record["owner"], record["fence"]) == ("bob", 2)
    assert (record["taken_over"]["from"], record["taken_over"]["reason"]) == ("ann", "ann lost her connection")
    assert interrupted.journal(RUN).entries()[-1]["data"] == record


def test_a_run_is_taken_over_from_under_a_living_process_which_learns_of_it(control: Control) -> None:
    first = control.acquire(RUN, PLAN, "ann", os.getpid())
    assert not control.is_overtaken(RUN, first["fence"])
    second = control.acquire(RUN, PLAN, "bob", os.getpid(), takeover="it hangs")
    assert control.is_overtaken(RUN, first["fence"])
    assert not control.is_overtaken(RUN, second["fence"])


APPROVAL = Approval("lea", '{"approver":"lea"}\n', "signature")


def test_an_approval_is_used_once(control: Control) -> None:
    first = control.acquire(RUN, PLAN, "ann", os.getpid(), approval=APPROVAL)
    assert (first["approved_by"], control.approved_by(RUN)) == ("lea", "lea")
    control.release(RUN, first["fence"], {"state": "done"})
    with pytest.raises(Refused, match=f"it was used for run {RUN}"):
        control.acquire(OTHER, PLAN, "ann", os.getpid(), approval=APPROVAL)
    assert control.holder() is None


def test_an_approval_whose_run_was_killed_before_it_began_is_not_lost(control: Control) -> None:
    with control.exclusively():
        control._use(APPROVAL, RUN)
    assert control.acquire(OTHER, PLAN, "ann", os.getpid(), approval=APPROVAL)["approved_by"] == "lea"


ROUNDS = 200


def contend(directory: str, run: str, barrier: Any, seen: Any) -> None:
    """In each round, at the same moment as the other: open a run, and say whether that went well."""
    own = Control(directory)
    for number in range(ROUNDS):
        barrier.wait(60)
        try:
            record = own.acquire(f"{run}{number:03x}", PLAN, "ann", os.getpid())
        except Refused:
            record = None
        seen.put((number, record and record["fence"]))
        barrier.wait(60)
        if record:
            own.release(record["run"], record["fence"], {"state": "done"})


def test_of_two_operators_at_once_exactly_one_gets_the_lock_in_200_rounds(control: Control) -> None:
    context = multiprocessing.get_context("fork")
    barrier, seen = context.Barrier(2), context.Queue()
    runs = ("20261124T031500Z-backend-a", "20261124T031500Z-backend-b")
    operators = [context.Process(target=contend, args=(control.directory, run, barrier, seen)) for run in runs]
    for operator in operators:
        operator.start()
    results = [seen.get(timeout=60) for _ in range(2 * ROUNDS)]
    for operator in operators:
        operator.join(60)
    won = {number: fence for number, fence in results if fence}
    assert len([fence for _number, fence in results if fence]) == len(won) == ROUNDS
    assert sorted(won.values()) == list(range(1, ROUNDS + 1))
