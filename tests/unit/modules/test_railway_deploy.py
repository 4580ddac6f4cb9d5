"""railway_deploy with a real command, against a scripted wire: it ships once, and believes only what it reads."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.marketsage.rollback.plugins.module_utils import api
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import Journal
from ansible_collections.marketsage.rollback.plugins.modules import railway_deploy
from ansible_collections.marketsage.rollback.tests.unit.modules.railway_wire import (
    BAD,
    BAD_LIVE,
    LOCATE,
    OLD_GONE,
    TOKEN,
    Answer,
    Wire,
    node,
    state_of,
)

Call = Callable[..., dict[str, Any]]
HYBRID = "d" * 40
BEFORE = state_of(BAD_LIVE, OLD_GONE, live="bad")
UNDER_WAY = state_of(node("new", HYBRID, "BUILDING"), BAD_LIVE, OLD_GONE, live="bad")
AFTER = state_of(node("new", HYBRID, "SUCCESS"), node("bad", BAD), OLD_GONE, live="new")


@pytest.fixture
def release(tmp_path: Path) -> Path:
    directory = tmp_path / "release"
    directory.mkdir()
    (directory / "release.json").write_text(json.dumps({"commit": HYBRID}))
    return directory


@pytest.fixture
def deploy(
    monkeypatch: pytest.MonkeyPatch, call_module: Call, tmp_path: Path, release: Path, run: dict[str, Any]
) -> Call:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(TOKEN)

    def call(script: list[tuple[str, Answer]], exits: int = 0, **arguments: Any) -> dict[str, Any]:
        wire = Wire(list(script))
        monkeypatch.setattr(api, "request", wire.request)
        given = {
            "token_file": str(token), "token_type": "project", "service": "marketsage-frontend", "poll_interval": 0.01,
            "timeout": 30, "commit": HYBRID, "directory": str(release), "variables": {"WHO": "rollback"}, "run": run,
            "command": ["sh", "-c", f'echo "$WHO: $(cat release.json)" >> shipped; echo said; exit {exits}'],
        }  # fmt: skip
        result = call_module(railway_deploy, **{**given, **arguments})
        assert wire.script == []
        return result

    return call


def shipped(release: Path) -> int:
    file = release / "shipped"
    lines = file.read_text().splitlines() if file.exists() else []
    assert set(lines) <= {f'rollback: {{"commit": "{HYBRID}"}}'}
    return len(lines)


def test_it_ships_the_release_and_waits_until_it_is_live(deploy: Call, release: Path, run: dict[str, Any]) -> None:
    result = deploy([*LOCATE, ("State", BEFORE), ("State", BEFORE), ("State", UNDER_WAY), ("State", AFTER)])
    assert (result["changed"], result["deployed"]["id"], shipped(release)) == (True, "new", 1)
    assert result["diff"] == {"before": {"commit": BAD}, "after": {"commit": HYBRID}}
    entries = Journal(f"{run['state_dir']}/journal/{run['id']}.jsonl").entries()
    assert [entry["kind"] for entry in entries] == ["intent", "outcome"]
    documented = yaml.safe_load(railway_deploy.RETURN).keys() - {"exit_code", "advice"}
    assert result.keys() - {"changed", "diff", "invocation"} == documented


def test_railway_need_not_know_the_commit_of_what_is_uploaded(deploy: Call, release: Path) -> None:
    after = state_of(node("new", None, "SUCCESS"), node("bad", BAD), live="new")
    assert deploy([*LOCATE, ("State", BEFORE), ("State", after)])["deployed"]["id"] == "new"


def test_check_mode_ships_nothing(deploy: Call, release: Path) -> None:
    result = deploy([*LOCATE, ("State", BEFORE)], check=True, run=None)
    assert (result["changed"], result["deployed"], shipped(release)) == (True, None, 0)


@pytest.mark.parametrize(("state", "changed"), [(AFTER, False), (UNDER_WAY, True)])
def test_what_is_live_or_under_way_is_not_shipped_again(
    deploy: Call, release: Path, state: Answer, changed: bool
) -> None:
    following = [("State", AFTER)] if changed else []
    result = deploy([*LOCATE, ("State", state), *following])
    assert (result["changed"], result["deployed"]["id"], shipped(release)) == (changed, "new", 0)


def test_a_command_that_failed_after_it_had_shipped_is_not_run_again(deploy: Call, release: Path) -> None:
    result = deploy([*LOCATE, ("State", BEFORE), ("State", UNDER_WAY), ("State", AFTER)], exits=1)
    assert (result["deployed"]["id"], shipped(release)) == ("new", 1)


def test_a_command_that_ships_nothing_is_held_with_what_it_said(
    deploy: Call, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ansible_collections.marketsage.rollback.plugins.module_utils.railway_delivery."
                        "_PAUSES_TO_SHOW_UP", 0)
    failed = deploy([*LOCATE, ("State", BEFORE), ("State", BEFORE), ("State", BEFORE)], exits=4)
    assert (failed["exit_code"], shipped(release)) == (20, 2)
    assert "command: sh ended with 4: said" in failed["msg"]


def test_another_deployment_that_goes_live_meanwhile_holds_it(deploy: Call) -> None:
    other = state_of(node("other", "e" * 40, "SUCCESS"), node("bad", BAD), live="other")
    failed = deploy([*LOCATE, ("State", BEFORE), ("State", other)])
    assert (failed["exit_code"], "went live over the rollback" in failed["msg"]) == (20, True)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"commit": "HEAD~1"}, "commit: 'HEAD~1' is not a full commit"),
        ({"command": []}, "command: each command is a list of words"),
        ({"directory": "/nowhere"}, "directory: /nowhere holds no built release"),
        ({"poll_interval": 99}, "poll_interval: 99.0 is not above 0"),
    ],
)
def test_bad_input_names_the_parameter(deploy: Call, wrong: dict[str, Any], says: str) -> None:
    failed = deploy([], **wrong)
    assert (failed["exit_code"], failed["msg"].startswith(says)) == (2, True), failed["msg"]
