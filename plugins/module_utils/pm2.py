# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One pm2 daemon: its processes over its RPC socket, or over its CLI where the socket speaks another protocol.

The CLI takes 250 to 300 ms to start and restarts two instances one after the other; the socket answers in a few
milliseconds and restarts them together.
"""
from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import stat
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Held, Refused
from ansible_collections.marketsage.rollback.plugins.module_utils.releases import working_directory

_AMP_VERSION = 1
_LONGEST_ARGUMENT = 64 * 1024 * 1024
# A process younger than this may not have changed into its directory yet.
_BOOT_SECONDS = 1.0
# The daemon goes on starting the processes of an application one after the other when the command was killed.
_NEXT_PROCESS_SECONDS = 5.0
_SHORTEST_WAIT = 1.0
_LOG_LINES = 10
_LOG_BYTES = 8192
_SECRET_NAME = re.compile(r"PASS|SECRET|TOKEN|KEY|CREDENTIAL|DSN|URL", re.IGNORECASE)
_SHORTEST_SECRET = 6


class ForeignProtocol(Exception):
    """The socket answers, but not as the axon RPC of pm2's daemon does."""


class Busy(Held):
    """The daemon is in the middle of something with this process; the same request can work a moment later."""


@dataclass(frozen=True)
class Instance:
    """What may be known of one process of an application; never its environment, which holds secrets."""

    id: int
    name: str
    pid: int
    status: str
    restarts: int
    cwd: str
    script: str
    error_log: str
    waits_ready: bool
    configured: int
    age: float
    release: str | None
    secrets: tuple[str, ...] = field(repr=False)

    @property
    def young(self) -> bool:
        return self.age < _BOOT_SECONDS

    def runs(self, release: str) -> bool:
        return self.status == "online" and self.release == release

    def leads_to(self, release: str) -> bool:
        """Whether a restart would run `release`; not so where pm2 froze another release's path at the start."""
        script = os.path.realpath(self.script)
        frozen = script.startswith(os.path.dirname(release) + "/") and not script.startswith(release + "/")
        return os.path.realpath(self.cwd) == release and not frozen

    def in_transition(self, release: str) -> bool:
        """Whether pm2 is still at work on it, so that what it will run cannot be told yet."""
        return self.status == "stopping" or (self.status == "launching" and self.release in (None, release))

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id, "pid": self.pid, "status": self.status, "release": self.release, "restarts": self.restarts,
        }

    def log_tail(self) -> list[str]:
        """The last lines of its error log, without the secrets of its environment."""
        try:
            with open(self.error_log, "rb") as file:
                file.seek(max(0, os.path.getsize(self.error_log) - _LOG_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return []
        return [self._redacted(line)[:300] for line in lines[-_LOG_LINES:]]

    def _redacted(self, line: str) -> str:
        for secret in self.secrets:
            line = line.replace(secret, "***")
        return re.sub(r"://[^/@\s]+@", "://***@", line)


def _instance(raw: dict[str, Any], daemon_cwd: str | None) -> Instance:
    """Keep what is wanted of an entry of pm2's process list."""
    env = raw["pm2_env"]
    age = time.time() - env.get("pm_uptime", 0) / 1000
    return Instance(
        id=int(raw["pm_id"]),
        name=str(raw["name"]),
        pid=int(raw.get("pid") or 0),
        status=str(env["status"]),
        restarts=int(env.get("restart_time", 0)),
        cwd=str(env["pm_cwd"]),
        script=str(env["pm_exec_path"]),
        error_log=str(env.get("pm_err_log_path", "")),
        waits_ready=bool(env.get("wait_ready")),
        configured=int(env.get("instances") or 1),
        age=age,
        release=_release_of(int(raw.get("pid") or 0), age < _BOOT_SECONDS, daemon_cwd),
        secrets=_secrets(env),
    )


def _secrets(env: dict[str, Any]) -> tuple[str, ...]:
    variables = {**env, **env.get("env", {})}
    values = {str(value) for name, value in variables.items() if _SECRET_NAME.search(name)}
    return tuple(sorted((value for value in values if len(value) >= _SHORTEST_SECRET), key=len, reverse=True))


def _release_of(pid: int, young: bool, daemon_cwd: str | None) -> str | None:
    """The directory that a process runs in, as the kernel tells; None where it cannot be told (yet).

    A worker is born in its daemon's directory and changes into its own while it boots.
    """
    cwd = working_directory(pid) if pid else None
    return None if young and cwd == daemon_cwd else cwd


def _more_to_come(instances: list[Instance]) -> bool:
    """Whether an application was started so lately that it may not have all its processes yet."""
    if not instances:
        return False
    fewer = len(instances) < max(one.configured for one in instances)
    return fewer and min(one.age for one in instances) < _NEXT_PROCESS_SECONDS


def _patience(deadline: Deadline) -> float:
    """Seconds to wait for an answer: what has been waited for to the end is still read once more."""
    return max(deadline.left(), _SHORTEST_WAIT)


class Socket:
    """pm2's daemon over `<pm2_home>/rpc.sock`: axon's request and reply sockets in amp frames, JSON inside."""

    name = "socket"

    def __init__(self, home: str) -> None:
        self._path = os.path.join(home, "rpc.sock")

    def processes(self, deadline: Deadline) -> list[dict[str, Any]]:
        (processes,) = self._call([("getMonitorData", {})], deadline)
        if not isinstance(processes, list) or not all("pm2_env" in process for process in processes):
            raise ForeignProtocol("the process list has another form")
        return processes

    def restart(self, ids: Iterable[int], deadline: Deadline) -> None:
        self._call([("restartProcessId", {"id": number}) for number in ids], deadline)

    def reload(self, number: int, deadline: Deadline) -> None:
        self._call([("reloadProcessId", {"id": number})], deadline)

    def stop(self, ids: Iterable[int], deadline: Deadline) -> None:
        self._call([("stopProcessId", number) for number in ids], deadline)

    def delete(self, ids: Iterable[int], deadline: Deadline) -> None:
        self._call([("deleteProcessId", number) for number in ids], deadline)

    def _call(self, calls: list[tuple[str, Any]], deadline: Deadline) -> list[Any]:
        """Send all calls at once and return their results in the same order."""
        replies: dict[str, Any] = {}
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_patience(deadline))
            try:
                connection.connect(self._path)
                for number, (method, argument) in enumerate(calls):
                    connection.sendall(_frame(method, argument, str(number)))
                for _call in calls:
                    reply, replied_to = _read_reply(connection, deadline)
                    replies[replied_to] = reply
            except socket.timeout:
                raise Held(f"pm2's daemon at {self._path} did not answer {calls[0][0]} in time") from None
        if set(replies) != {str(number) for number in range(len(calls))}:
            raise ForeignProtocol("replies carry other numbers than the calls")
        return [_result(replies[str(number)]) for number in range(len(calls))]


def _frame(method: str, argument: Any, number: str) -> bytes:
    call = json.dumps({"type": "call", "method": method, "args": [argument]})
    arguments = [f"j:{call}".encode(), f"s:{number}".encode()]
    head = bytes([_AMP_VERSION << 4 | len(arguments)])
    return head + b"".join(len(data).to_bytes(4, "big") + data for data in arguments)


def _read_reply(connection: socket.socket, deadline: Deadline) -> tuple[dict[str, Any], str]:
    head = _exactly(connection, 1, deadline)[0]
    if head >> 4 != _AMP_VERSION or head & 0xF != 2:
        raise ForeignProtocol("a frame has another version or size")
    arguments = []
    for _argument in range(2):
        length = int.from_bytes(_exactly(connection, 4, deadline), "big")
        if length > _LONGEST_ARGUMENT:
            raise ForeignProtocol("a frame is too long")
        arguments.append(_exactly(connection, length, deadline))
    return _unpacked(*arguments)


def _unpacked(reply: bytes, number: bytes) -> tuple[dict[str, Any], str]:
    if not reply.startswith(b"j:") or not number.startswith(b"s:"):
        raise ForeignProtocol("an argument has another type")
    try:
        body = json.loads(reply[2:])
    except ValueError:
        raise ForeignProtocol("a reply is no JSON") from None
    if not isinstance(body, dict) or not ("error" in body or body.get("args")):
        raise ForeignProtocol("a reply has neither a result nor an error")
    return body, number[2:].decode()


def _exactly(connection: socket.socket, count: int, deadline: Deadline) -> bytes:
    data = bytearray()
    while len(data) < count:
        connection.settimeout(_patience(deadline))
        part = connection.recv(count - len(data))
        if not part:
            raise ForeignProtocol("the connection was closed before the reply")
        data += part
    return bytes(data)


def _result(reply: dict[str, Any]) -> Any:
    if "error" in reply:
        _raise(str(reply["error"]))
    return reply["args"][0]


def _raise(message: str) -> None:
    """`already`: a reload, a start or a restart of this very process has not ended yet."""
    raise (Busy if "already" in message else Held)(f"pm2: {message[:300]}")


class Cli:
    """pm2's command line: starting and saving, which no RPC does, and everything where the socket is foreign."""

    name = "cli"

    def __init__(self, binary: str, home: str, environment: dict[str, str]) -> None:
        self._binary = binary
        self._home = home
        # pm2 hands the caller's environment to what it starts: only what is needed.
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "USER", "LANG") if name in os.environ}
        given = {str(name): str(value) for name, value in environment.items()}
        self._environment = {**kept, **given, "PM2_HOME": home}

    def processes(self, deadline: Deadline) -> list[dict[str, Any]]:
        lines = self._run(["jlist", "--silent"], deadline).splitlines()
        # An outdated daemon makes the CLI print warnings first.
        last = next((line for line in reversed(lines) if line.startswith("[")), "")
        try:
            processes: list[dict[str, Any]] = json.loads(last)
        except ValueError:
            raise Held("pm2 jlist printed no process list") from None
        return processes

    def restart(self, ids: Iterable[int], deadline: Deadline) -> None:
        self._change(["restart", *map(str, ids)], deadline)

    def reload(self, number: int, deadline: Deadline) -> None:
        self._change(["reload", str(number)], deadline)

    def stop(self, ids: Iterable[int], deadline: Deadline) -> None:
        self._change(["stop", *map(str, ids)], deadline)

    def delete(self, ids: Iterable[int], deadline: Deadline) -> None:
        self._change(["delete", *map(str, ids)], deadline)

    def start(self, ecosystem: str, name: str, deadline: Deadline) -> None:
        self._change(["start", ecosystem, "--only", name, "--silent"], deadline)

    def save(self, deadline: Deadline) -> None:
        self._change(["save"], deadline)

    def _change(self, arguments: list[str], deadline: Deadline) -> None:
        """Run a command that changes something while holding a lock that it inherits.

        The command lives on when this process is killed; a resume then waits for it instead of starting all again.
        """
        with open(os.path.join(self._home, "rollback.lock"), "a") as lock:
            for _attempt in deadline.attempts(0.05):
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    continue
            else:
                raise Held("an earlier pm2 command has not ended yet")
            self._run(arguments, deadline, lock.fileno())

    def _run(self, arguments: list[str], deadline: Deadline, *inherited: int) -> str:
        try:
            done = subprocess.run(
                [self._binary, *arguments], env=self._environment, cwd=self._home, pass_fds=inherited,
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_patience(deadline), check=False,
            )
        except subprocess.TimeoutExpired:
            raise Held(f"pm2 {arguments[0]} did not end in time") from None
        except OSError as error:
            raise Held(f"pm2: {self._binary} cannot be run ({error.strerror})") from None
        if done.returncode != 0:
            _raise(f"{arguments[0]} failed: " + " ".join((done.stderr or done.stdout).split()))
        return done.stdout


class App:
    """One application of one daemon, by its exact name."""

    def __init__(self, name: str, home: str, cli: Cli, deadline: Deadline) -> None:
        self.name = name
        self.home = home
        self.cli = cli
        self.dump = Dump(home)
        self.deadline = deadline
        self._daemon = self._reachable_daemon()

    @property
    def through(self) -> str:
        return self._daemon.name if self._daemon else "none"

    def instances(self) -> list[Instance]:
        """Its processes in the order of their ids; none where no daemon runs, since asking the CLI would start one."""
        if not self._daemon:
            return []
        daemon_cwd = working_directory(self._daemon_pid())
        processes = (_instance(raw, daemon_cwd) for raw in self._daemon.processes(self.deadline))
        return sorted((one for one in processes if one.name == self.name), key=lambda one: one.id)

    def settled(self, release: str, seconds: float) -> list[Instance]:
        """Its processes once pm2 has ended what it is doing with them, or after `seconds`."""
        for _attempt in Deadline(min(seconds, self.deadline.left())).attempts(0.05):
            instances = self.instances()
            if not any(one.in_transition(release) for one in instances) and not _more_to_come(instances):
                break
        return instances

    def restart(self, instances: list[Instance]) -> None:
        """Restart all at once."""
        daemon = self._running()
        waiting = [one.id for one in instances if one.status == "waiting restart"]
        if waiting:
            # pm2 refuses to restart what it counts down for by itself.
            daemon.stop(waiting, self.deadline)
        daemon.restart([one.id for one in instances], self.deadline)

    def reload(self, instances: list[Instance]) -> None:
        """Replace one after the other, without a gap in service."""
        for one in instances:
            self._running().reload(one.id, self.deadline)

    def delete(self, instances: list[Instance]) -> None:
        self._running().delete([one.id for one in instances], self.deadline)

    def start(self, ecosystem: str) -> None:
        """Start it as the ecosystem file says, and the daemon where none runs."""
        self.cli.start(ecosystem, self.name, self.deadline)
        self._daemon = self._reachable_daemon()

    def _running(self) -> Socket | Cli:
        if not self._daemon:
            raise Refused(f"pm2_home: no pm2 daemon runs for {self.home}")
        return self._daemon

    def _reachable_daemon(self) -> Socket | Cli | None:
        daemon = Socket(self.home)
        try:
            daemon.processes(self.deadline)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except (ForeignProtocol, ConnectionResetError, BrokenPipeError):
            return self.cli
        return daemon

    def _daemon_pid(self) -> int:
        try:
            with open(os.path.join(self.home, "pm2.pid")) as file:
                return int(file.read())
        except (OSError, ValueError):
            return 0


class Dump:
    """What pm2 brings back after a reboot: `dump.pm2` and its backup, which hold the complete environment."""

    def __init__(self, home: str) -> None:
        self._path = os.path.join(home, "dump.pm2")

    def exists(self) -> bool:
        return os.path.exists(self._path)

    def brings_back_another(self, instances: list[Instance]) -> bool:
        """Whether a dump is there that defines the application otherwise than it runs now."""
        running = sorted((one.cwd, one.script) for one in instances)
        return self.exists() and self._definitions(instances[0].name) != running

    def readable_by_others(self) -> list[str]:
        paths = [path for path in (self._path, self._path + ".bak") if os.path.exists(path)]
        return [path for path in paths if stat.S_IMODE(os.stat(path).st_mode) & 0o077]

    def tighten(self) -> None:
        for path in self.readable_by_others():
            os.chmod(path, 0o600)

    def _definitions(self, name: str) -> list[tuple[str, str]] | None:
        try:
            with open(self._path) as file:
                entries = json.load(file)
            return sorted((one["pm_cwd"], one["pm_exec_path"]) for one in entries if one["name"] == name)
        except (OSError, ValueError, KeyError, TypeError):
            return None
