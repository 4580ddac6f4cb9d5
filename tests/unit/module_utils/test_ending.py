from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils.ending import Ending

RUN = {"id": "20261124T031500Z-backend-3f9a", "fence": 1}
OPENED = {"status": "new", "run": RUN}
DONE = {"outcome": {"state": "done", "exit_code": 0, "run": RUN["id"]}}


def ending(*results: Any) -> Ending:
    end = Ending()
    for result in results:
        end.failed("api-1", result) if "msg" in result else end.succeeded(result)
    return end


@pytest.mark.parametrize(
    ("results", "code", "word"),
    [
        ([OPENED, DONE], 0, "DONE"),
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


def test_where_nothing_was_decided_ansibles_own_exit_code_stands() -> None:
    assert ending({"msg": "undefined variable"}).exit_code() is None
    assert ending({"status": "nothing", "run": None}).exit_code() is None
    assert ending({"status": "nothing", "run": None}).lines() == ["DONE: nothing to change"]


def test_hosts_that_get_no_requests_are_named_however_it_ends() -> None:
    drained = {"results": [{"server": {"name": "api-1", "admin": "drain"}}]}
    ready = {"results": [{"server": {"name": "api-1", "admin": "ready"}}]}
    assert "DRAINED: api-1" in ending(OPENED, drained, DONE).lines()[1]
    assert len(ending(OPENED, drained, ready, DONE).lines()) == 1


def test_every_host_that_failed_is_named() -> None:
    end = ending(OPENED, {"msg": "health answered 500", "exit_code": 5})
    end.failed("api-7", {"msg": "unreachable"})
    end.failed("localhost", {"msg": "health gate: api-1, api-7", "exit_code": 20})
    assert end.lines()[:2] == ["HELD: api-1: health answered 500", "ALSO FAILED: api-7"]
