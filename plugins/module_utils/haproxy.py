# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""HAProxy's runtime socket: a maintenance page kept in a map, and the servers of a backend, drained one by one.

The runtime API has no exit status: any text in reply to a change is its refusal.
"""
from __future__ import annotations

import csv
import os
import re
import socket
import stat
from typing import Any, Callable

from ansible_collections.marketsage.rollback.plugins.module_utils.balancer import LEAST_SECONDS, Seen
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Held, Unknown
from ansible_collections.marketsage.rollback.plugins.module_utils.files import write_atomically
from ansible_collections.marketsage.rollback.plugins.module_utils.validate import absolute_path

_TCP = re.compile(r"(127\.0\.0\.1|localhost):(\d{1,5})", re.ASCII)
_OPERATIONAL = {"0": "stopped", "1": "starting", "2": "running", "3": "stopping"}
_FORCED_MAINTENANCE = 0x01
_FORCED_DRAIN = 0x08


def address(value: str, name: str = "socket") -> str | tuple[str, int]:
    """The runtime socket's address: a Unix path, or a TCP port of this machine (the socket asks for no password)."""
    tcp = _TCP.fullmatch(value)
    if tcp:
        return tcp.group(1), int(tcp.group(2))
    if not value.startswith("/"):
        raise BadInput(f"{name}: {value!r} is neither an absolute path nor 127.0.0.1:PORT")
    return absolute_path(value, name)


class Runtime:
    """Asks one command per connection; no answer before the deadline is Unknown."""

    def __init__(self, where: str | tuple[str, int], deadline: Deadline) -> None:
        self._where = where
        self.deadline = deadline

    def ask(self, command: str) -> str:
        try:
            return self._exchange(f"{command}\n".encode()).decode("utf-8", "replace").strip()
        except OSError as error:
            raise Unknown(f"HAProxy does not answer on {self._where} ({error}); is it running?") from None

    def change(self, command: str) -> None:
        reply = self.ask(command)
        if reply:
            raise Held(f"HAProxy refused '{command}': {reply.splitlines()[0]}")

    def _exchange(self, command: bytes) -> bytes:
        family = socket.AF_UNIX if isinstance(self._where, str) else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(max(LEAST_SECONDS, self.deadline.left()))
            connection.connect(self._where)
            connection.sendall(command)
            return b"".join(iter(lambda: connection.recv(65536), b""))


class MaintenanceMap:
    """The page as haproxy.cfg looks it up: `all on|off` and `message TEXT` in a map file.

    The runtime decides what users get now, the file what they get after a reload or restart.
    """

    def __init__(self, runtime: Runtime, path: str, warn: Callable[[str], None]) -> None:
        self._runtime = runtime
        self._path = path
        self._warn = warn

    def read(self) -> Seen:
        runtime, file = self._runtime_map(), self._file_map()
        return Seen(
            serving=runtime.get("all") == "on", lasting=file.get("all") == "on", text=runtime.get("message")
        )

    def enable(self, text: str) -> None:
        """Put the page up even where the file cannot be written: users come first, a reload is a later worry."""
        wanted = {"message": text, "all": "on"}
        try:
            self._write_file(wanted)
        except OSError as error:
            self._warn(
                f"{self._path} could not be written ({error.strerror}): a reload of HAProxy takes the page down"
            )
        self._apply(wanted)

    def disable(self) -> None:
        try:
            self._write_file({"all": "off"})
        except OSError as error:
            raise Held(f"{self._path} could not be written ({error.strerror}); the page stays up") from None
        self._apply({"all": "off"})

    def _apply(self, wanted: dict[str, str]) -> None:
        present = self._runtime_map()
        for key, value in wanted.items():
            verb = "set" if key in present else "add"
            self._runtime.change(f"{verb} map {self._path} {key} {_escaped(value)}")

    def _runtime_map(self) -> dict[str, str]:
        reply = self._runtime.ask(f"show map {self._path}")
        if reply and not reply.startswith("0x"):
            raise BadInput(f"map_file: HAProxy has loaded no map {self._path}; name it exactly as haproxy.cfg does")
        return _pairs(line.partition(" ")[2] for line in reply.splitlines())

    def _file_map(self) -> dict[str, str]:
        return _pairs(line for line in self._lines() if not line.startswith("#"))

    def _lines(self) -> list[str]:
        try:
            with open(self._path) as file:
                return file.read().splitlines()
        except OSError as error:
            raise BadInput(f"map_file: {self._path} cannot be read ({error.strerror})") from None

    def _write_file(self, wanted: dict[str, str]) -> None:
        others = [line for line in self._lines() if line.partition(" ")[0] not in wanted]
        lines = others + [f"{key} {value}" for key, value in wanted.items()]
        mode = stat.S_IMODE(os.stat(self._path).st_mode)
        write_atomically(self._path, "\n".join(lines) + "\n", mode)


def servers(runtime: Runtime, backend: str) -> dict[str, dict[str, Any]]:
    """The servers of a backend by name: `admin` (ready, drain, maint), `operational` state, number of `sessions`."""
    sessions = {row["svname"]: int(row["scur"] or 0) for row in _rows(runtime, "show stat", backend, " 4 -1")}
    return {
        row["srv_name"]: {
            "backend": backend,
            "name": row["srv_name"],
            "admin": _admin_state(int(row["srv_admin_state"])),
            "operational": _OPERATIONAL.get(row["srv_op_state"], "unknown"),
            "sessions": sessions[row["srv_name"]],
        }
        for row in _rows(runtime, "show servers state", backend)
    }


class StateFile:
    """HAProxy's server-state file: the servers that stay drained when it is reloaded or restarted.

    Only what is drained has a line here: the runtime's other states are those of the moment.
    """

    def __init__(self, runtime: Runtime, path: str) -> None:
        self._runtime = runtime
        self._path = path

    def admin(self, backend: str, name: str) -> str:
        """The administrative state that the server has after a reload."""
        if not self._text():
            return "ready"
        rows = _table(self._text())
        mine = [row for row in rows if (row["be_name"], row["srv_name"]) == (backend, name)]
        return _admin_state(int(mine[0]["srv_admin_state"])) if mine else "ready"

    def write(self, backend: str, name: str, admin: str) -> None:
        """Have the server in this state after a reload; what the file says of others stays."""
        version, header, *rows = self._runtime.ask(f"show servers state {backend}").splitlines()
        columns = header.removeprefix("# ").split()
        owner, server, flags = map(columns.index, ("be_name", "srv_name", "srv_admin_state"))

        def is_mine(row: list[str]) -> bool:
            return (row[owner], row[server]) == (backend, name)

        kept = [row for row in map(str.split, self._text().splitlines()[2:]) if not is_mine(row)]
        if admin == "drain":
            mine = next(filter(is_mine, map(str.split, rows)))
            mine[flags] = str(_FORCED_DRAIN)
            kept.append(mine)
        lines = [version, header, *map(" ".join, kept)]
        try:
            write_atomically(self._path, "".join(f"{line}\n" for line in lines), 0o644)
        except OSError as error:
            raise Held(f"{self._path} could not be written ({error.strerror}); {backend}/{name} is as it was") from None

    def _text(self) -> str:
        try:
            with open(self._path) as file:
                return file.read()
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise BadInput(f"state_file: {self._path} cannot be read ({error.strerror})") from None


def _admin_state(flags: int) -> str:
    return "maint" if flags & _FORCED_MAINTENANCE else "drain" if flags & _FORCED_DRAIN else "ready"


def _rows(runtime: Runtime, command: str, backend: str, arguments: str = "") -> list[dict[str, str]]:
    reply = runtime.ask(f"{command} {backend}{arguments}")
    header, _hash, table = reply.partition("# ")
    if not table:
        raise BadInput(f"backend: HAProxy has no backend {backend} ({header.strip()})")
    return _table(reply)


def _table(reply: str) -> list[dict[str, str]]:
    """The rows of a table of HAProxy's, by the names in its header."""
    lines = reply.partition("# ")[2].splitlines()
    return list(csv.DictReader(lines, delimiter="," if "," in lines[0] else " "))


class Server:
    """One server of a backend, taken out of rotation gently and put back; lastingly where there is a state file."""

    def __init__(self, runtime: Runtime, backend: str, name: str, state_file: str | None) -> None:
        self._runtime = runtime
        self._backend = backend
        self._name = name
        self._file = StateFile(runtime, state_file) if state_file else None

    def read(self) -> dict[str, Any]:
        """Its state, as `servers` has it, and `lasting`: its `admin` state after a reload, None where nobody knows."""
        present = servers(self._runtime, self._backend)
        if self._name not in present:
            raise BadInput(f"server: backend {self._backend} has no server {self._name}")
        lasting = self._file.admin(self._backend, self._name) if self._file else None
        return {**present[self._name], "lasting": lasting}

    def refuse_last(self) -> None:
        """Held where it is the only server that serves, so that without it users would meet nobody."""
        serving = [name for name, state in servers(self._runtime, self._backend).items() if ready(state)]
        if serving == [self._name]:
            raise Held(
                f"server {self._backend}/{self._name} is the last one that serves; without it users would meet nobody",
                "Put another one back into rotation first.",
            )

    def set(self, admin: str) -> dict[str, Any]:
        """Give it the administrative state `ready` or `drain`, first after a reload, then now, and read it back."""
        if self._file:
            self._file.write(self._backend, self._name, admin)
        self._runtime.change(f"set server {self._backend}/{self._name} state {admin}")
        return self.wait(lambda state: state["admin"] == admin, admin)

    def wait(self, finished: Callable[[dict[str, Any]], bool], wanted: str) -> dict[str, Any]:
        """Its state once `finished`; Held when it is not so before the deadline."""
        for _attempt in self._runtime.deadline.attempts(0.05, longest=0.5):
            state = self.read()
            if finished(state):
                return state
        raise Held(
            f"server {self._backend}/{self._name} is not {wanted} after {self._runtime.deadline.seconds:g} s: "
            f"{state['admin']}, {state['operational']}, {state['sessions']} sessions"
        )


def drained(state: dict[str, Any]) -> bool:
    return state["admin"] == "drain" and state["sessions"] == 0


def ready(state: dict[str, Any]) -> bool:
    return state["admin"] == "ready" and state["operational"] == "running"


def _escaped(text: str) -> str:
    return re.sub(r"([\\ ;])", r"\\\1", text)


def _pairs(lines: Any) -> dict[str, str]:
    """Keys and values of a map; of a key that is there twice HAProxy uses the first."""
    pairs: dict[str, str] = {}
    for line in lines:
        key, _space, value = line.strip().partition(" ")
        if key:
            pairs.setdefault(key, value.strip())
    return pairs
