"""compose_rollback on a real git checkout; what stands for compose shows its file and writes down what it is told."""
from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils import compose
from ansible_collections.marketsage.rollback.plugins.modules import compose_rollback as module

Call = Callable[..., dict[str, Any]]
COMPOSE = """#!/bin/sh
shift 2
case "$1" in config) sed "s|HOST|$(cat .env)|" docker-compose.yml ;; *) echo "$@" >> LOG ;; esac
"""
IMAGE = "registry.invalid/prometheus@sha256:" + "a" * 64
OLD = f"services: {{prometheus: {{image: {IMAGE}, ports: HOST}}, grafana: {{image: {IMAGE}}}}}\n"
NEWER = OLD.replace("a" * 64, "b" * 64, 1)


class Host:
    """A checkout with two revisions and a file of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.checkout = directory / "stack"
        self.log = directory / "log"
        self.data = directory / "data"
        self.log.touch()
        self.compose = directory / "compose"
        self.compose.write_text(COMPOSE.replace("LOG", str(self.log)))
        self.compose.chmod(0o755)
        self.git("init", "--quiet", str(self.checkout), at=directory)
        self.good = self.commit(OLD, "good")
        (self.checkout / ".env").write_text("9090")
        self.data.mkdir()
        (self.data / "wal").write_text("samples")

    def git(self, *arguments: str, at: Path | None = None) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@t.invalid"]
        return subprocess.check_output(["git", *who, *arguments], cwd=at or self.checkout, text=True).strip()

    def commit(self, definition: str, rules: str) -> str:
        (self.checkout / "docker-compose.yml").write_text(definition)
        (self.checkout / "rules.yml").write_text(rules)
        self.git("add", "--all", "docker-compose.yml", "rules.yml")
        self.git("commit", "--quiet", "--allow-empty", "--message", rules)
        return self.git("rev-parse", "HEAD")

    def arguments(self, **more: Any) -> dict[str, Any]:
        return {
            "directory": str(self.checkout), "project": "stack", "compose_command": [str(self.compose)],
            "local_files": [".env"], "backup_dir": str(self.directory / "backups"),
            "services": {"prometheus": {"files": ["rules.yml"], "data": str(self.data)}}, **more,
        }  # fmt: skip

    def told(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def call(call_module: Call, host: Host, run: dict[str, Any]) -> Call:
    return lambda state, **more: call_module(module, state=state, **host.arguments(run=run, **more))


def test_what_was_live_is_what_was_checked_out(host: Host, call: Call) -> None:
    bad = host.commit(OLD, "bad")
    never_live = host.commit(OLD, "never live")
    host.git("checkout", "--quiet", bad)
    host.git("reflog", "delete", "HEAD@{1}")
    listed = call("listed")
    assert listed["live"]["commit"] == bad
    assert [one["commit"] for one in listed["candidates"]] == [host.good]
    assert never_live not in str(listed)


def test_only_what_changed_is_made_anew_and_its_data_is_kept_where_the_image_changes(host: Host, call: Call) -> None:
    bad = host.commit(NEWER, "good")
    checked = call("live", live=bad, commit=host.good, check=True)
    assert (checked["changed"], checked["recreated"], host.told()) == (True, ["prometheus"], [])
    assert host.git("rev-parse", "HEAD") == bad

    done = call("live", live=bad, commit=host.good)
    assert (done["recreated"], done["reloaded"], done["removed"]) == (["prometheus"], [], [])
    assert host.git("rev-parse", "HEAD") == host.good
    assert host.told() == ["stop prometheus", "up -d --no-deps --force-recreate prometheus"]
    assert (Path(done["kept"]["prometheus"]["path"]) / "wal").read_text() == "samples"
    assert (done["kept"]["prometheus"]["files"], done["kept"]["prometheus"]["bytes"]) == (1, 7)


def test_files_alone_stop_nothing_and_copy_nothing(host: Host, call: Call) -> None:
    bad = host.commit(OLD, "bad")
    done = call("live", live=bad, commit=host.good)
    assert (done["recreated"], done["kept"]) == (["prometheus"], {})
    assert host.told() == ["up -d --no-deps --force-recreate prometheus"]


def test_a_revision_without_digests_or_that_is_not_valid_touches_nothing(host: Host, call: Call) -> None:
    loose = host.commit(OLD.replace(f"grafana: {{image: {IMAGE}", "grafana: {image: grafana:latest"), "loose")
    bad = host.commit(NEWER, "bad")
    held = call("live", live=bad, commit=loose)
    assert (held["exit_code"], "image of grafana is not pinned" in held["msg"]) == (20, True)
    invalid = call("live", live=bad, commit=host.good, validate=[["grep", "-q", "something else", "rules.yml"]])
    assert (invalid["exit_code"], "validate: grep ended with 1" in invalid["msg"]) == (20, True)
    assert (host.git("rev-parse", "HEAD"), host.told()) == (bad, [])


def test_what_was_changed_by_hand_or_meanwhile_is_not_written_over(host: Host, call: Call) -> None:
    bad = host.commit(NEWER, "bad")
    (host.checkout / "rules.yml").write_text("by hand")
    held = call("live", live=bad, commit=host.good)
    assert (held["exit_code"], "rules.yml differs" in held["msg"]) == (20, True)
    host.git("checkout", "--quiet", "rules.yml")
    other = host.commit(NEWER, "somebody else's")
    assert "but the plan was made on" in call("live", live=bad, commit=host.good)["msg"]
    assert (host.git("rev-parse", "HEAD"), host.told()) == (other, [])


def test_killed_after_the_checkout_the_next_call_brings_the_services_there(
    host: Host, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = host.commit(NEWER, "good")

    class Killed(BaseException):
        pass

    def check_out_and_die(project: compose.Project, commit: str) -> None:
        check_out(project, commit)
        raise Killed

    check_out = compose.check_out
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(compose, "check_out", check_out_and_die)
        call("live", live=bad, commit=host.good)
    assert host.git("rev-parse", "HEAD") == host.good
    done = call("live", live=bad, commit=host.good)
    assert done["changed"] and host.told()[-1] == "up -d --no-deps --force-recreate prometheus"
    assert not call("live", live=host.good, commit=host.good)["changed"]


def test_a_prometheus_that_does_not_answer_proves_nothing(host: Host, call: Call) -> None:
    asked = {"commit": host.good, "prometheus_url": "http://127.0.0.1:9", "timeout": 1}
    proof = call("proved", **asked, fail=False)
    assert (proof["passed"], [one["status"] for one in proof["results"]]) == (False, ["passed", "unknown"])
    assert call("proved", **asked)["exit_code"] == 5


def test_a_directory_that_is_no_checkout_is_bad_input(call_module: Call, tmp_path: Path) -> None:
    said = call_module(module, state="listed", directory=str(tmp_path), project="x")
    assert (said["exit_code"], "is no git checkout" in said["msg"]) == (2, True)
