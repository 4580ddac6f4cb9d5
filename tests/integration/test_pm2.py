"""pm2_restart on a real pm2 daemon with real node processes."""
from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils import pm2
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Held
from ansible_collections.marketsage.rollback.sandbox import node
from ansible_collections.marketsage.rollback.tests.helpers import eventually, free_port, further

NAME = "marketsage-backend"
OLD, NEW = "a" * 12, "b" * 12
SECRET = "correct-horse-battery"
RUNNER = """
import json, sys
from ansible.module_utils.testing import patch_module_args
from ansible_collections.marketsage.rollback.plugins.modules import pm2_restart
with patch_module_args(json.load(sys.stdin)):
    pm2_restart.main()
"""
GOOD = """
const server = require("http").createServer((request, response) => response.end(process.cwd()));
server.listen(Number(process.env.PORT), "127.0.0.1", () => setTimeout(() => process.send("ready"), BOOT));
process.on("SIGINT", () => { server.close(); setTimeout(() => process.exit(0), 50); });
"""
# pm2 loses what is written in the very moment of the exit.
EXITS = 'console.error("cannot start with " + process.env.API_TOKEN); setTimeout(() => process.exit(3), 30);'
FLAPS = 'process.send("ready"); setTimeout(() => { console.error("lost my database"); process.exit(1); }, 1100);'


class Host:
    """A backend host in miniature: releases, the link, a daemon of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home = directory / "p"
        self.home.mkdir()
        self.environment = {**node.environment(), "PM2_HOME": str(self.home)}
        self.ecosystem = directory / "ecosystem.config.cjs"
        self.port = free_port()

    def release(self, name: str, script: str, boot: int = 0) -> Path:
        path = self.directory / "releases" / name
        path.mkdir(parents=True, exist_ok=True)
        (path / "app.js").write_text(script.replace("BOOT", str(boot)))
        return path

    def switch(self, name: str) -> Path:
        with contextlib.suppress(FileNotFoundError):
            (self.directory / "current").unlink()
        (self.directory / "current").symlink_to(f"releases/{name}")
        return self.directory / "releases" / name

    def define(self, cwd: Path | None = None, **more: Any) -> None:
        app = {
            "name": NAME, "cwd": str(cwd or self.directory / "current"), "script": "app.js", "instances": 2,
            "exec_mode": "cluster", "wait_ready": True, "listen_timeout": 4000, "kill_timeout": 1000,
            "env": {"PORT": self.port, "API_TOKEN": SECRET}, **more,
        }
        self.ecosystem.write_text(f"module.exports = {{ apps: [{json.dumps(app)}] }};")

    def pm2(self, *arguments: str) -> str:
        return subprocess.run(
            [str(node.pm2()), *arguments], env=self.environment, cwd=self.directory, check=True,
            capture_output=True, text=True, timeout=60,
        ).stdout

    def processes(self) -> list[tuple[int, str, int]]:
        """pid, status and restarts of each process, as pm2's own command line tells."""
        listed = json.loads(self.pm2("jlist", "--silent").splitlines()[-1])
        return [(one["pid"], one["pm2_env"]["status"], one["pm2_env"]["restart_time"]) for one in listed]

    def directories(self) -> list[str]:
        return [os.readlink(f"/proc/{pid}/cwd") for pid, _status, _restarts in self.processes()]

    def arguments(self, **more: Any) -> dict[str, Any]:
        return {
            "name": NAME, "pm2_home": str(self.home), "pm2": str(node.pm2()), "ecosystem": str(self.ecosystem),
            "current": str(self.directory / "current"), "timeout": 20,
            "environment": {"PATH": node.environment()["PATH"]},
            "run": {"id": "20261124T031500Z-backend-3f9a", "fence": 1, "state_dir": str(self.directory / "state")},
            **more,
        }

    def begin(self, **more: Any) -> subprocess.Popen[str]:
        """Start the module in a process of its own."""
        process = subprocess.Popen(
            [sys.executable, "-c", RUNNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env={**os.environ, "PYTHONPATH": "collections"}, start_new_session=True,
        )
        assert process.stdin
        process.stdin.write(json.dumps(self.arguments(**more)))
        process.stdin.close()
        process.stdin = None
        return process

    def restart(self, **more: Any) -> dict[str, Any]:
        out, err = self.begin(**more).communicate(timeout=60)
        assert SECRET not in out + err
        assert out, err
        return dict(json.loads(out))

    def journal(self) -> list[dict[str, Any]]:
        (path,) = (self.directory / "state" / "journal").iterdir()
        return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    directory = tmp_path_factory.mktemp("h")
    host = Host(directory)
    host.release(OLD, GOOD)
    host.release(NEW, GOOD)
    host.switch(OLD)
    host.define()
    yield host
    with contextlib.suppress(subprocess.SubprocessError):
        host.pm2("kill")
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def running(host: Host) -> Host:
    host.pm2("start", str(host.ecosystem))
    return host


@pytest.mark.parametrize("method", ["restart", "reload"])
def test_puts_every_process_on_the_release_and_then_changes_nothing(running: Host, method: str) -> None:
    release = running.switch(NEW)

    done = running.restart(method=method)

    assert (done["changed"], done["action"], done["acted_on"], done["through"]) == (True, method, [0, 1], "socket")
    assert running.directories() == [str(release)] * 2
    assert [(one["status"], one["release"]) for one in done["instances"]] == [("online", str(release))] * 2
    assert done["diff"]["before"]["0"] == {"release": str(running.directory / "releases" / OLD), "status": "online"}
    processes = running.processes()
    again = running.restart(method=method, run=None)
    assert (again["changed"], again["action"]) == (False, "none")
    assert running.processes() == processes
    assert [entry["kind"] for entry in running.journal()] == ["intent", "outcome"]


def test_check_mode_says_what_would_be_restarted_and_restarts_nothing(running: Host) -> None:
    release = running.switch(NEW)
    processes = running.processes()

    said = running.restart(_ansible_check_mode=True, run=None)

    assert (said["changed"], said["action"], said["acted_on"]) == (True, "restart", [0, 1])
    assert said["diff"]["after"]["1"] == {"release": str(release), "status": "online"}
    assert running.processes() == processes
    assert not (running.directory / "state").exists()


def test_check_mode_starts_no_daemon(host: Host) -> None:
    said = host.restart(_ansible_check_mode=True, run=None)

    assert (said["changed"], said["action"], said["through"]) == (True, "start", "none")
    assert list(host.home.iterdir()) == []


def test_starts_an_application_that_pm2_does_not_know(host: Host) -> None:
    done = host.restart()

    assert (done["action"], len(done["instances"])) == ("start", 2)
    assert host.directories() == [str(host.directory / "releases" / OLD)] * 2


def test_only_what_does_not_run_the_release_is_restarted(running: Host) -> None:
    running.switch(NEW)
    running.pm2("restart", "0")
    first = running.processes()[0]

    done = running.restart()

    assert done["acted_on"] == [1]
    assert running.processes()[0] == first


def test_a_frozen_path_is_cured_by_delete_and_start(host: Host) -> None:
    host.define(cwd=host.directory / "releases" / OLD)
    host.pm2("start", str(host.ecosystem))
    host.pm2("save")
    host.define()
    release = host.switch(NEW)

    host.pm2("restart", NAME)
    assert host.directories() == [str(host.directory / "releases" / OLD)] * 2
    refused = host.restart(ecosystem=None)
    assert (refused["failed"], refused["exit_code"]) == (True, 3)
    assert "froze" in refused["msg"]

    done = host.restart()
    assert (done["action"], done["saved"]) == ("replace", True)
    assert host.directories() == [str(release)] * 2
    dump = host.home / "dump.pm2"
    assert {one["pm_cwd"] for one in json.loads(dump.read_text())} == {str(host.directory / "current")}
    assert dump.stat().st_mode & 0o777 == 0o600
    assert host.restart(run=None)["changed"] is False


def test_the_saved_list_is_made_private_and_not_rewritten_when_it_is_right(running: Host) -> None:
    running.pm2("save")
    dump = running.home / "dump.pm2"
    text = dump.read_text()
    assert dump.stat().st_mode & 0o077

    done = running.restart()

    assert (done["changed"], done["action"], done["saved"]) == (True, "none", False)
    assert dump.stat().st_mode & 0o777 == 0o600
    assert dump.read_text() == text


@pytest.mark.parametrize("method", ["restart", "reload"])
def test_a_release_that_exits_at_boot_is_a_failure_with_its_log(running: Host, method: str) -> None:
    running.release(NEW, EXITS)
    running.switch(NEW)

    failed = running.restart(method=method)

    assert (failed["failed"], failed["exit_code"]) == (True, 20)
    assert failed["error_log"][-1] == "cannot start with ***"
    assert len(failed["error_log"]) <= 10
    assert running.journal()[-1]["kind"] == "failed"


def test_reload_leaves_the_other_process_serving_when_the_first_does_not_come_up(running: Host) -> None:
    running.release(NEW, EXITS)
    running.switch(NEW)
    second = running.processes()[1]

    running.restart(method="reload")

    assert running.processes()[1] == second


def test_a_release_that_flaps_is_a_failure(running: Host) -> None:
    running.release(NEW, FLAPS)
    running.switch(NEW)

    failed = running.restart(settle=3)

    assert failed["exit_code"] == 20
    assert "by itself" in failed["msg"] or "errored" in failed["msg"]
    assert "lost my database" in failed["error_log"][-1]


def test_rolls_back_from_a_release_that_is_errored(host: Host) -> None:
    # pm2 gives up on what ends before min_uptime, and within its own second a busy machine has not even started it.
    host.define(min_uptime=60000, max_restarts=3)
    host.pm2("start", str(host.ecosystem))
    host.release(NEW, EXITS)
    host.switch(NEW)
    host.restart()
    eventually(lambda: {status for _pid, status, _restarts in host.processes()} == {"errored"})
    release = host.switch(OLD)

    done = host.restart()

    assert done["changed"] is True
    assert host.directories() == [str(release)] * 2


def test_rolls_back_from_a_release_that_waits_to_be_restarted(host: Host) -> None:
    host.define(restart_delay=60000)
    host.pm2("start", str(host.ecosystem))
    host.release(NEW, EXITS)
    host.switch(NEW)
    host.restart(timeout=3)
    release = host.switch(OLD)

    host.restart()

    assert host.directories() == [str(release)] * 2


def test_names_are_exact(running: Host) -> None:
    running.switch(NEW)
    processes = running.processes()

    for name in ("all", "0", "default", "marketsage"):
        refused = running.restart(name=name, ecosystem=None)
        assert (refused["failed"], refused["exit_code"]) == (True, 3)
    assert running.restart(name="/market/")["exit_code"] == 2
    assert running.processes() == processes


def test_a_second_application_of_the_same_daemon_is_not_touched(running: Host) -> None:
    other = running.directory / "other.js"
    other.write_text("setInterval(() => {}, 1000);")
    running.pm2("start", str(other), "--name", "other")
    running.switch(NEW)
    untouched = running.processes()[2]

    running.restart()

    assert running.processes()[2] == untouched


def test_current_must_lead_to_the_release(running: Host) -> None:
    refused = running.restart(release=str(running.directory / "releases" / NEW))

    assert refused["exit_code"] == 3
    assert "switch it first" in refused["msg"]


def test_a_process_that_ends_and_is_not_restarted_is_a_failure(host: Host) -> None:
    host.define(autorestart=False)
    host.pm2("start", str(host.ecosystem))
    host.release(NEW, EXITS)
    host.switch(NEW)

    failed = host.restart()

    assert failed["exit_code"] == 20
    assert failed["msg"].endswith("is stopped")


@pytest.mark.parametrize("delay", [0.3, *further(0.05, 0.6)])
@pytest.mark.parametrize("method", ["restart", "reload"])
def test_killed_in_the_middle_the_next_run_finishes(running: Host, method: str, delay: float) -> None:
    running.release(NEW, GOOD, boot=300)
    release = running.switch(NEW)

    process = running.begin(method=method)
    _wait_for_intent(running)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = running.restart(method=method)

    assert "failed" not in done
    assert running.directories() == [str(release)] * 2
    assert max(restarts for _pid, _status, restarts in running.processes()) == 1


@pytest.mark.parametrize("kill", [os.kill, os.killpg], ids=["module", "module and pm2"])
@pytest.mark.parametrize("delay", [0.5, *further(0.2, 0.8)])
def test_killed_while_replacing_the_next_run_finishes(
    host: Host, delay: float, kill: Callable[[int, int], None]
) -> None:
    host.define(cwd=host.directory / "releases" / OLD)
    host.pm2("start", str(host.ecosystem))
    host.define()
    host.release(NEW, GOOD, boot=200)
    release = host.switch(NEW)

    process = host.begin()
    _wait_for_intent(host)
    time.sleep(delay)
    kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = host.restart()

    assert "failed" not in done, done
    assert host.directories() == [str(release)] * 2


def _wait_for_intent(host: Host) -> None:
    eventually(lambda: any(path.stat().st_size for path in (host.directory / "state" / "journal").glob("*")))


def test_waits_for_a_reload_that_somebody_else_began(running: Host) -> None:
    running.release(NEW, GOOD, boot=600)
    release = running.switch(NEW)

    other = subprocess.Popen(
        [str(node.pm2()), "reload", "0"], env=running.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(0.5)
    done = running.restart(method="reload")
    other.wait(timeout=30)

    assert "failed" not in done, done
    assert running.directories() == [str(release)] * 2


def test_the_command_line_does_what_the_socket_does(running: Host) -> None:
    cli = pm2.Cli(str(node.pm2()), str(running.home), running.environment)
    socket_of_the_daemon = pm2.Socket(str(running.home))
    deadline = Deadline(60)

    def seen() -> list[tuple[str, int]]:
        lists = [
            [(one["pm2_env"]["status"], one["pm2_env"]["restart_time"]) for one in way.processes(deadline)]
            for way in (cli, socket_of_the_daemon)
        ]
        assert lists[0] == lists[1]
        return lists[0]

    cli.restart([0, 1], deadline)
    cli.reload(0, deadline)
    assert seen() == [("online", 2), ("online", 1)]
    cli.stop([1], deadline)
    assert [status for status, _restarts in seen()] == ["online", "stopped"]
    cli.delete([0, 1], deadline)
    assert seen() == []
    with pytest.raises(Held, match="restart failed"):
        cli.restart([7], deadline)
