"""systemd_restart against a systemctl that obeys and ones that lie; the main processes are real."""
from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.modules import systemd_restart

Call = Callable[..., dict[str, Any]]
STAND_IN = """#!{python}
import json, os, subprocess, sys
path = "{directory}/state.json"
state = json.load(open(path))
state["asked"].append(sys.argv[1:])
if "restart" in sys.argv and state["restart_fails"]:
    print("Job for the service failed.")
elif "restart" in sys.argv and not state["deaf"]:
    process = subprocess.Popen(["sleep", "60"], cwd="{directory}/current", stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    state["pid"], state["pids"], state["active"] = process.pid, [*state["pids"], process.pid], "active"
if "show" in sys.argv:
    state["restarts"] += state["crashes"]
    print("MainPID=%s\\nNRestarts=%s\\nLoadState=%s\\nActiveState=%s\\nSubState=running"
          % (state["pid"], state["restarts"], state["load"], state["active"]))
json.dump(state, open(path, "w"))
sys.exit(1 if "restart" in sys.argv and state["restart_fails"] else 0)
"""
AT_FIRST = {
    "pid": 0, "pids": [], "restarts": 0, "load": "loaded", "active": "inactive", "asked": [],
    "deaf": False, "restart_fails": False, "crashes": 0,
}  # fmt: skip


class Systemd:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "bin").mkdir()
        program = directory / "bin/systemctl"
        program.write_text(STAND_IN.format(python=sys.executable, directory=directory))
        program.chmod(0o755)
        for name in ("old", "new"):
            (directory / name).mkdir()
        self._write(AT_FIRST)

    def lead_to(self, release: str) -> None:
        with suppress(FileNotFoundError):
            (self.directory / "current").unlink()
        (self.directory / "current").symlink_to(self.directory / release)

    def set(self, **changes: Any) -> None:
        self._write({**self.state(), **changes})

    def state(self) -> dict[str, Any]:
        return dict(json.loads((self.directory / "state.json").read_text()))

    def restarts_asked(self) -> int:
        return sum("restart" in asked for asked in self.state()["asked"])

    def _write(self, state: dict[str, Any]) -> None:
        (self.directory / "state.json").write_text(json.dumps(state))


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    systemd = Systemd(tmp_path)
    systemd.lead_to("old")
    yield systemd
    for pid in systemd.state()["pids"]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def restart(systemd: Systemd, run: dict[str, Any], call_module: Call) -> Call:
    path = f"{systemd.directory}/bin{os.pathsep}{os.environ['PATH']}"

    def call(**said: Any) -> dict[str, Any]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", path)
            arguments = {
                "unit": "berths.service", "current": str(systemd.directory / "current"), "settle": 0.1, "timeout": 5,
                "run": run, **said,
            }  # fmt: skip
            return call_module(systemd_restart, **arguments)

    return call


def test_the_service_is_restarted_on_the_release_and_a_second_time_nothing_is(restart: Call, systemd: Systemd) -> None:
    assert restart()["action"] == "restart"
    systemd.lead_to("new")
    first = restart()
    assert first["changed"] and first["service"]["release"] == str(systemd.directory / "new")
    second = restart()
    assert not second["changed"] and second["service"]["pid"] == first["service"]["pid"]
    assert systemd.restarts_asked() == 2


def test_check_mode_says_what_would_be_and_asks_for_nothing(restart: Call, systemd: Systemd) -> None:
    restart()
    systemd.lead_to("new")
    said = restart(check=True, run=None)
    assert said["action"] == "restart" and said["diff"]["before"]["release"] == str(systemd.directory / "old")
    assert systemd.restarts_asked() == 1


def test_a_restart_that_systemd_calls_done_and_was_none_is_seen(restart: Call, systemd: Systemd) -> None:
    restart()
    systemd.lead_to("new")
    systemd.set(deaf=True)
    failed = restart(timeout=1)
    assert failed["failed"] and failed["exit_code"] == 20
    assert f"runs {systemd.directory}/old, not {systemd.directory}/new" in failed["msg"]


def test_a_restart_that_fails_says_what_systemd_said(restart: Call, systemd: Systemd) -> None:
    systemd.set(restart_fails=True)
    failed = restart()
    assert failed["exit_code"] == 20 and "Job for the service failed" in failed["msg"]
    assert failed["advice"] == "Read: journalctl --unit berths.service"


def test_a_service_that_is_restarted_again_and_again_is_given_up_early(restart: Call, systemd: Systemd) -> None:
    systemd.set(crashes=1)
    failed = restart(timeout=30)
    assert failed["exit_code"] == 20 and "times by systemd" in failed["msg"]


@pytest.mark.parametrize(("said", "told"), [
    ({"unit": "--all"}, "unit: '--all'"),
    ({"current": "/nowhere/current"}, "current: /nowhere/current leads to no directory"),
    ({"timeout": 0}, "timeout: "),
])  # fmt: skip
def test_what_cannot_be_used_is_told_in_one_line(restart: Call, systemd: Systemd, said: Any, told: str) -> None:
    failed = restart(**said)
    assert failed["exit_code"] == 2 and told in failed["msg"] and "\n" not in failed["msg"]
    assert not systemd.restarts_asked()


def test_a_unit_that_systemd_does_not_have_is_told(restart: Call, systemd: Systemd) -> None:
    systemd.set(load="not-found")
    failed = restart()
    assert failed["exit_code"] == 2 and failed["msg"] == "unit: systemd has no service berths.service (not-found)"


def test_without_a_run_nothing_is_changed(restart: Call, systemd: Systemd) -> None:
    assert restart(run=None)["exit_code"] == 3
    assert not systemd.restarts_asked()
