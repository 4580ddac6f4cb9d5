"""pm2_restart against a stand-in for pm2's daemon, one that obeys and several that lie."""
from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.marketsage.rollback.plugins.module_utils import pm2
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Held
from ansible_collections.marketsage.rollback.plugins.modules import pm2_restart

NAME = "api"
SECRET = "s3cr3t-value"
OLD_START = 1_700_000_000_000


class Daemon:
    """Speaks axon over rpc.sock and keeps one real process per instance, in the directory that `current` leads to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "p"
        self.home.mkdir()
        self.calls: list[tuple[str, Any]] = []
        self.processes: list[dict[str, Any]] = []
        self.children: list[subprocess.Popen[bytes]] = []
        self.answer: Callable[[str, Any], dict[str, Any]] = self.obey
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.home / "rpc.sock"))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def add(self, **more: Any) -> None:
        env = {
            "status": "online", "restart_time": 0, "pm_uptime": OLD_START, "instances": 2, "wait_ready": True,
            "pm_cwd": str(self.root / "current"), "pm_exec_path": str(self.root / "current" / "app.js"),
            "pm_err_log_path": str(self.root / "error.log"), "env": {"API_TOKEN": SECRET}, **more,
        }
        number = len(self.processes)
        self.processes.append({"pm_id": number, "name": NAME, "pid": self._spawn(), "pm2_env": env})

    def obey(self, method: str, argument: Any) -> dict[str, Any]:
        if method == "getMonitorData":
            return {"args": [self.processes]}
        process = self.processes[argument["id"]]
        process["pid"] = self._spawn()
        process["pm2_env"].update(status="online", restart_time=process["pm2_env"]["restart_time"] + 1)
        return {"args": [process]}

    def close(self) -> None:
        self._listener.close()
        for child in self.children:
            child.kill()
            child.wait()

    def changes(self) -> list[tuple[str, Any]]:
        return [call for call in self.calls if call[0] != "getMonitorData"]

    def _spawn(self) -> int:
        self.children.append(subprocess.Popen(["sleep", "60"], cwd=self.root / "current"))
        return self.children[-1].pid

    def _serve(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with suppress(ConnectionError), connection, connection.makefile("rwb") as stream:
            while stream.read(1):
                call = json.loads(stream.read(int.from_bytes(stream.read(4), "big"))[2:])
                number = stream.read(int.from_bytes(stream.read(4), "big"))
                self.calls.append((call["method"], call["args"][0]))
                reply = b"j:" + json.dumps(self.answer(call["method"], call["args"][0])).encode()
                frame = b"\x12" + b"".join(len(part).to_bytes(4, "big") + part for part in (reply, number))
                stream.write(frame)
                stream.flush()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    for name in ("old", "new"):
        (tmp_path / "releases" / name).mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/old")
    (tmp_path / "pm2").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "pm2").chmod(0o755)
    daemon = Daemon(tmp_path)
    daemon.add()
    daemon.add()
    yield daemon
    daemon.close()


@pytest.fixture
def restart(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    def run_module(**more: Any) -> dict[str, Any]:
        root = daemon.root
        arguments = {
            "name": NAME, "pm2_home": str(daemon.home), "pm2": str(root / "pm2"), "current": str(root / "current"),
            "timeout": 3, "settle": 0.1,
            "run": {"id": "20261124T031500Z-backend-3f9a", "fence": 1, "state_dir": str(root / "state")}, **more,
        }
        with patch_module_args(arguments), pytest.raises(SystemExit):
            pm2_restart.main()
        output = capsys.readouterr().out
        assert SECRET not in output
        return dict(json.loads(output))

    return run_module


def switch(daemon: Daemon) -> str:
    (daemon.root / "current").unlink()
    (daemon.root / "current").symlink_to("releases/new")
    return str(daemon.root / "releases" / "new")


def test_an_obeying_daemon_is_asked_once_for_each_process(daemon: Daemon, restart: Any) -> None:
    release = switch(daemon)

    done = restart()

    assert sorted(argument["id"] for _method, argument in daemon.changes()) == [0, 1]
    assert [one["release"] for one in done["instances"]] == [release] * 2
    assert restart(run=None)["changed"] is False
    assert len(daemon.changes()) == 2


def test_reload_asks_for_one_after_the_other(daemon: Daemon, restart: Any) -> None:
    switch(daemon)

    restart(method="reload")

    assert daemon.changes() == [("reloadProcessId", {"id": 0}), ("reloadProcessId", {"id": 1})]


def test_a_change_without_a_run_is_refused(daemon: Daemon, restart: Any) -> None:
    switch(daemon)

    assert restart(run=None)["exit_code"] == 3
    assert daemon.changes() == []


def test_a_daemon_that_says_yes_and_does_nothing_is_not_believed(daemon: Daemon, restart: Any) -> None:
    release = switch(daemon)
    daemon.answer = lambda method, argument: {"args": [daemon.processes]}

    failed = restart()

    assert failed["exit_code"] == 20
    assert f"not {release}" in failed["msg"]


def test_a_process_that_is_said_to_be_online_but_is_not_there_is_unknown(daemon: Daemon, restart: Any) -> None:
    switch(daemon)

    def lie(method: str, argument: Any) -> dict[str, Any]:
        reply = daemon.obey(method, argument)
        daemon.processes[1]["pid"] = 2**22 + 1
        return reply

    daemon.answer = lie
    failed = restart()

    assert failed["exit_code"] == 30
    assert failed["msg"].endswith("?")


def test_a_process_that_died_before_pm2_noticed_is_looked_at_again(daemon: Daemon, restart: Any) -> None:
    switch(daemon)
    alive = []

    def notice_late(method: str, argument: Any) -> dict[str, Any]:
        reply = daemon.obey(method, argument)
        if method != "getMonitorData" and argument["id"] == 1:
            alive.append(daemon.processes[1]["pid"])
            daemon.processes[1]["pid"] = 2**22 + 1
        elif alive and [name for name, _argument in daemon.calls[-2:]] == ["getMonitorData"] * 2:
            daemon.processes[1]["pid"] = alive[0]
        return reply

    daemon.answer = notice_late
    assert restart()["changed"] is True


def test_a_daemon_that_lost_a_process_is_a_failure(daemon: Daemon, restart: Any) -> None:
    switch(daemon)

    def lose(method: str, argument: Any) -> dict[str, Any]:
        reply = daemon.obey(method, argument)
        if method != "getMonitorData":
            return {"args": [daemon.processes[0]]}
        return {"args": [daemon.processes[:1]]} if daemon.changes() else reply

    daemon.answer = lose
    assert "1 of 2 processes" in restart()["msg"]


def test_restarts_that_go_on_are_flapping(daemon: Daemon, restart: Any) -> None:
    switch(daemon)

    def flap(method: str, argument: Any) -> dict[str, Any]:
        if daemon.changes():
            daemon.processes[1]["pm2_env"]["restart_time"] += 1
        return daemon.obey(method, argument)

    daemon.answer = flap
    (daemon.root / "error.log").write_text(f"one\npostgresql://me:pw@db/x {SECRET}\n")
    failed = restart()

    assert "by itself" in failed["msg"]
    assert failed["error_log"] == ["one", "postgresql://***@db/x ***"]


def test_only_ten_lines_of_the_log_are_given(daemon: Daemon, restart: Any) -> None:
    switch(daemon)
    daemon.answer = lambda method, argument: {"args": [daemon.processes]}
    (daemon.root / "error.log").write_text("".join(f"line {number}\n" for number in range(50)))

    assert restart()["error_log"] == [f"line {number}" for number in range(40, 50)]


def test_a_reload_in_progress_is_waited_for(daemon: Daemon, restart: Any) -> None:
    switch(daemon)
    refusals = iter(range(2))

    def busy(method: str, argument: Any) -> dict[str, Any]:
        if method == "reloadProcessId" and next(refusals, None) is not None:
            return {"error": "Reload already in progress for process id 0, retry later"}
        return daemon.obey(method, argument)

    daemon.answer = busy
    assert restart(method="reload")["changed"] is True
    assert [argument["id"] for _method, argument in daemon.changes()] == [0, 0, 0, 1]


def test_a_reload_that_never_ends_is_given_up(daemon: Daemon, restart: Any) -> None:
    switch(daemon)

    def busy(method: str, argument: Any) -> dict[str, Any]:
        if method == "reloadProcessId":
            return {"error": "Reload already in progress for process id 0, retry later"}
        return daemon.obey(method, argument)

    daemon.answer = busy
    failed = restart(method="reload", timeout=1)

    assert failed["exit_code"] == 20
    assert "already in progress" in failed["msg"]


def test_processes_that_are_still_being_started_are_waited_for(daemon: Daemon, restart: Any) -> None:
    second = daemon.processes.pop()
    daemon.processes[0]["pm2_env"]["pm_uptime"] = time.time() * 1000

    def start_the_second(method: str, argument: Any) -> dict[str, Any]:
        if len(daemon.calls) == 4:
            daemon.processes.append(second)
        return daemon.obey(method, argument)

    daemon.answer = start_the_second
    done = restart()

    assert (done["changed"], len(done["instances"])) == (False, 2)


def test_a_daemon_that_refuses_is_quoted(daemon: Daemon, restart: Any) -> None:
    switch(daemon)

    def refuse(method: str, argument: Any) -> dict[str, Any]:
        return daemon.obey(method, argument) if method == "getMonitorData" else {"error": "PM2 is being killed"}

    daemon.answer = refuse
    assert restart()["msg"] == "pm2: PM2 is being killed"


def test_a_daemon_that_does_not_answer_is_not_waited_for_longer_than_the_timeout(daemon: Daemon, restart: Any) -> None:
    switch(daemon)

    def hang(method: str, argument: Any) -> dict[str, Any]:
        if method != "getMonitorData":
            time.sleep(5)
        return daemon.obey(method, argument)

    daemon.answer = hang
    assert "did not answer" in restart(timeout=1)["msg"]


@pytest.mark.parametrize("reply", [{"neither": 1}, {"args": ["no list"]}, {"args": [[{"pm_id": 1}]]}])
def test_another_protocol_falls_back_to_the_command_line(daemon: Daemon, restart: Any, reply: dict[str, Any]) -> None:
    daemon.answer = lambda method, argument: reply
    listed = daemon.root / "listed.json"
    listed.write_text("In-memory PM2 is out-of-date\n" + json.dumps(daemon.processes))
    (daemon.root / "pm2").write_text(f'#!/bin/sh\n[ "$1" = jlist ] && [ -n "$PM2_HOME" ] && cat {listed}\n')

    done = restart()

    assert (done["through"], done["changed"]) == ("cli", False)


def test_the_command_line_gets_ids_and_no_foreign_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPERATORS_TOKEN", "x")
    script = tmp_path / "pm2"
    script.write_text('#!/bin/sh\necho "$@" >>said\nenv >environment\n')
    script.chmod(0o755)
    cli = pm2.Cli(str(script), str(tmp_path), {"EXTRA": "1"})

    cli.restart([0, 3], Deadline(5))
    cli.reload(3, Deadline(5))
    cli.start("/srv/e.cjs", NAME, Deadline(5))

    assert (tmp_path / "said").read_text() == "restart 0 3\nreload 3\nstart /srv/e.cjs --only api --silent\n"
    environment = (tmp_path / "environment").read_text()
    assert "EXTRA=1" in environment
    assert "OPERATORS_TOKEN" not in environment


def test_a_command_that_an_earlier_run_left_behind_is_waited_for(tmp_path: Path) -> None:
    script = tmp_path / "pm2"
    script.write_text("#!/bin/sh\nexec sleep 20\n")
    script.chmod(0o755)
    cli = pm2.Cli(str(script), str(tmp_path), {})
    with pytest.raises(Held, match="did not end in time"):
        cli.save(Deadline(0.2))
    with open(tmp_path / "rollback.lock") as lock:
        left_behind = subprocess.Popen(["sleep", "20"], pass_fds=[lock.fileno()])
        pm2.fcntl.flock(lock, pm2.fcntl.LOCK_EX)
    try:
        with pytest.raises(Held, match="earlier pm2 command"):
            cli.save(Deadline(0.2))
    finally:
        left_behind.kill()
        left_behind.wait()


def test_a_save_that_saves_nothing_is_not_believed(daemon: Daemon, restart: Any) -> None:
    dump = daemon.home / "dump.pm2"
    dump.write_text("[]")
    (daemon.root / "pm2").write_text("#!/bin/sh\nexit 0\n")

    assert "still holds another definition" in restart()["msg"]
    assert stat.S_IMODE(dump.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("parameter", "value", "says"),
    [
        ("name", "/all/", "name: '/all/' is not a name"),
        ("pm2_home", "/nowhere", "pm2_home: /nowhere is not a directory"),
        ("pm2", "/nowhere/pm2", "pm2: there is no file"),
        ("ecosystem", "/nowhere/e.cjs", "ecosystem: there is no file"),
        ("current", "/nowhere/current", "current: /nowhere/current leads to no directory"),
        ("timeout", 0, "timeout: 0 is not a whole number"),
        ("settle", -1, "settle: -1.0 is not between 0 and the timeout"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    daemon: Daemon, restart: Any, parameter: str, value: Any, says: str
) -> None:
    switch(daemon)

    failed = restart(**{parameter: value})

    assert failed["exit_code"] == 2
    assert failed["msg"].startswith(says)
    assert "\n" not in failed["msg"]
    assert daemon.calls == []


def test_the_documented_keys_are_the_returned_ones(daemon: Daemon, restart: Any) -> None:
    yaml = pytest.importorskip("yaml")
    documented = yaml.safe_load(pm2_restart.RETURN)
    returned = set(restart()) - {"changed", "diff", "invocation"}

    assert returned == {name for name, value in documented.items() if "success" in value["returned"]}
    assert os.path.basename(pm2_restart.__file__) == yaml.safe_load(pm2_restart.DOCUMENTATION)["module"] + ".py"
