from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils.ending import Ending

RUN = {"id": "20261124T031500Z-backend-3f9a", "fence": 1}
OPENED = {"status": "new", "run": RUN}
APPROVAL = {"need": "none", "roles": ["team_lead"], "given_by": None}
PROOF = {"proof": "the gate passed and traffic is on", "approval": APPROVAL}
DONE = {"outcome": {"state": "done", "exit_code": 0, "run": RUN["id"], "undone": [], **PROOF}}
QUEUED = {"outcome": {**DONE["outcome"], "exit_code": 10, "undone": ["railway: auto-deploy is still on"]}}
ABORTED = {"outcome": {**DONE["outcome"], "exit_code": 21, "state": "aborted"}}


def ending(*results: Any) -> Ending:
    end = Ending()
    for result in results:
        end.failed("api-1", result) if "msg" in result else end.succeeded(result)
    return end


@pytest.mark.parametrize(
    ("results", "code", "word"),
    [
        ([OPENED, DONE], 0, "DONE"),
        ([OPENED, QUEUED], 10, "DONE"),
        ([OPENED, ABORTED], 21, "ABORTED"),
        ([OPENED], 20, "HELD"),
        ([OPENED, {"msg": "health answered 500", "exit_code": 5}], 20, "HELD"),
        ([OPENED, {"msg": "unreachable"}], 20, "HELD"),
        ([OPENED, {"msg": "did the commit arrive?", "exit_code": 30}], 30, "UNKNOWN"),
        ([{"msg": "severity: '' is not", "exit_code": 2}], 2, "BAD INPUT"),
        ([{"msg": "lock: held", "exit_code": 3}], 3, "REFUSED"),
        ([{"msg": "a check failed", "exit_code": 5}], 5, "UNHEALTHY"),
    ],
)
def test_exit_code_and_first_word_say_how_it_ended(results: list[Any], code: int, word: str) -> None:
    end = ending(*results)
    assert end.exit_code() == code
    assert end.lines()[0].startswith(f"{word}: ")


def test_a_held_run_says_what_to_do_next() -> None:
    lines = ending(OPENED, {"msg": "health answered 500", "exit_code": 5}).lines()
    assert f"rollback resume {RUN['id']}" in lines[1]
    assert f"--instead-of {RUN['id']}" in lines[2]


def test_where_nothing_was_begun_the_failure_behind_a_refusal_is_told_too() -> None:
    end = Ending()
    end.failed("railway", {"msg": "Validation failed:\nmissing: project"})
    end.failed("api-2", {"msg": "no route to host"})
    end.failed("localhost", {"msg": "not read (railway: nothing was read; api-2: no route to host)", "exit_code": 3})
    assert end.lines()[1:] == ["ALSO FAILED: railway: Validation failed: missing: project", "ALSO FAILED: api-2"]


def test_where_nothing_was_decided_ansibles_own_exit_code_stands() -> None:
    assert ending({"msg": "undefined variable"}).exit_code() is None
    assert ending({"status": "nothing", "run": None}).exit_code() is None
    assert ending({"status": "nothing", "run": None}).lines() == ["DONE: nothing to change"]
    assert ending({"status": "new", "run": None}).exit_code() is None
    assert ending({"status": "new", "run": None}).lines() == ["PLANNED: nothing was changed"]


@pytest.mark.parametrize(("results", "said"), [([], "Nothing was changed"), ([OPENED], "rollback abort")])
def test_a_run_that_was_asked_to_stop_says_where_it_stands(results: list[Any], said: str) -> None:
    end = ending(*results)
    end.stopped = "as you asked, before 'Restore traffic'"
    assert end.exit_code() == 130
    assert end.lines()[0] == "STOPPED: as you asked, before 'Restore traffic'"
    assert said in "".join(end.lines())


def test_what_is_still_to_do_and_a_missing_approval_are_said() -> None:
    outcome = {**QUEUED["outcome"], "approval": {**APPROVAL, "need": "preferred"}}
    lines = ending(OPENED, {"outcome": outcome}).lines()
    assert "NOTE: nobody of team_lead approved it" in lines[1]
    assert lines[2] == "STILL TO DO: railway: auto-deploy is still on"


def test_a_run_that_is_done_but_not_told_says_so_and_a_held_one_stays_held() -> None:
    done, held = ending(OPENED, DONE), ending(OPENED)
    for end in (done, held):
        end.undelivered = ["alerts (answered 500)"]
        assert "QUEUED: not told yet: alerts (answered 500)" in end.lines()
    assert (done.exit_code(), held.exit_code()) == (10, 20)


def test_hosts_that_get_no_requests_are_named_however_it_ends() -> None:
    drained = {"results": [{"server": {"name": "api-1", "admin": "drain"}}]}
    ready = {"results": [{"server": {"name": "api-1", "admin": "ready"}}]}
    assert "DRAINED: api-1" in ending(OPENED, drained, DONE).lines()[1]
    assert len(ending(OPENED, drained, ready, DONE).lines()) == 1


def test_of_a_loop_the_item_that_failed_is_named() -> None:
    items = [{"failed": False}, {"failed": True, "msg": "server api/api-1 is not ready", "exit_code": 20}]
    end = ending(OPENED, {"msg": "One or more items failed", "results": items})
    assert end.lines()[0] == "HELD: api-1: server api/api-1 is not ready"


def test_every_host_that_failed_is_named() -> None:
    end = ending(OPENED, {"msg": "health answered 500", "exit_code": 5})
    end.failed("api-7", {"msg": "unreachable"})
    end.failed("localhost", {"msg": "health gate: api-1, api-7", "exit_code": 20})
    assert end.lines()[:2] == ["HELD: api-1: health answered 500", "ALSO FAILED: api-7"]
