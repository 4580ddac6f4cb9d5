from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.marketsage.rollback.sandbox import layout
from ansible_collections.marketsage.rollback.wrapper import drill_history, overview


def test_who_gets_no_requests_is_shown_with_the_reason() -> None:
    states = {"api-1": ("ready", "running"), "api-2": ("drain", "running"), "api-3": ("ready", "stopped")}
    servers = {
        name: {"name": name, "admin": admin, "operational": operational}
        for name, (admin, operational) in states.items()
    }
    assert overview.out_of_rotation({"servers": servers}) == ["api-2 (drain)", "api-3 (stopped)"]
    assert overview.out_of_rotation({"enabled": None, "msg": "unreachable"}) == []


def test_what_a_release_is_kept_as_is_told_for_each_that_could_be_restored() -> None:
    hosts = ["api-1", "api-2"]
    reports = {
        host: {"candidates": [{"commit": "a", "built": True}, {"commit": "b", "built": host == "api-1"},
                              {"commit": "c", "built": False}]}
        for host in hosts
    }  # fmt: skip
    for silent in ({}, {"api-3": {"msg": "unreachable"}}):
        found = {"reports": {**reports, **silent}}
        told = [overview.kept({"commit": commit}, [*hosts, *silent], found).plain for commit in "abc"]
        assert told == ["built", "built on api-1 alone", "to be built"]
    images = [(True, 7205), (True, None), (False, None)]
    told = [overview.kept({"can_rollback": is_kept, "retention_left": left}, [], {}).plain for is_kept, left in images]
    assert told == ["image, 2 h", "image", "to be built"]


def test_the_last_drill_is_told_or_that_there_was_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "default_directory", lambda: tmp_path / "sandbox")
    assert "none was held" in overview.drill_line(drill_history.last_of_this_host()).plain
    history = drill_history.of_this_host()
    history.prepare()
    turning = {"first_page": 1.0, "first_good_after": 8.04}
    held = {"kind": "backend", "scenario": "backend-500", "time": "2026-11-28T18:54:00+00:00", "steps": []}
    history.keep({**held, "exit_code": 0, "turning_points": turning, "assessed": None, "by_hand": []})
    line = overview.drill_line(drill_history.last_of_this_host()).plain
    assert line == "last drill   backend (backend-500) on 28 Nov 18:54 ended well, users were away for 7 s"
    (tmp_path / "drills/history.jsonl").write_text("{")
    assert overview.drill_line(drill_history.last_of_this_host()).plain.startswith("last drill   unknown: ")
