# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The whole cluster as it was at a point in time: restored by pgBackRest into a side cluster that only we can reach."""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, NamedTuple
from urllib.parse import quote

from ansible_collections.marketsage.rollback.plugins.module_utils import command, postgres, validate
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Held, RollbackError
from ansible_collections.marketsage.rollback.plugins.module_utils.postgres_tools import Tools

ARGUMENT = {
    "type": "dict",
    "options": {
        "stanza": {"type": "str", "required": True},
        "config": {"type": "path", "required": True},
        "bin_dir": {"type": "path", "required": True},
        "work_dir": {"type": "path", "required": True},
        "as_user": {"type": "list", "elements": "str", "default": []},
    },
}
_SIDE = "rollback_side_"
_LONGEST_DIRECTORY = 90
# Nobody connects before the recovery has ended; nothing is listened to but a socket in a private directory; and no
# library is loaded that would do in the side cluster what it does in the live one, such as running jobs.
_LOG = "side.log"
_CONFIGURATION = """
listen_addresses = ''
unix_socket_directories = '{directory}'
hot_standby = off
archive_mode = off
fsync = off
port = 5432
ssl = off
shared_preload_libraries = ''
hba_file = '{directory}/rollback_hba.conf'
ident_file = '{directory}/rollback_ident.conf'
"""


class PgBackRest(NamedTuple):
    """Where the cluster's backups are, the server's own programs, and the words that make us who PostgreSQL runs as."""

    stanza: str
    config: str
    bin_dir: str
    work_dir: str
    as_user: list[str]

    @classmethod
    def of(cls, parameter: dict[str, Any]) -> PgBackRest:
        validate.identifier(parameter["stanza"], "pgbackrest.stanza")
        for name in ("config", "bin_dir", "work_dir"):
            validate.absolute_path(parameter[name], f"pgbackrest.{name}")
        if len(parameter["work_dir"]) > _LONGEST_DIRECTORY - len(_SIDE) - 16:
            raise BadInput(f"pgbackrest.work_dir: {parameter['work_dir']} is too long for a Unix socket")
        return cls(**{name: parameter[name] for name in cls._fields})

    @contextmanager
    def cluster(self, server: postgres.Server, target: datetime, tools: Tools) -> Iterator[postgres.Server]:
        """The same database on a side cluster, as it was at `target`."""
        self._discard_leftovers(server)
        directory = os.path.join(self.work_dir, _SIDE + os.urandom(8).hex())
        try:
            archive_until_now(server)
            self._execute(server, "mkdir", "-p", "-m", "700", directory)
            tools.say(f"pgBackRest restores stanza {self.stanza} as it was at {target.isoformat()} into {directory}")
            self._restore(server, directory, target)
            self._start(server, directory)
            side = _side_server(server, directory)
            _await_end_of_recovery(side, directory)
            yield side
        finally:
            self._discard(server, directory)

    def _restore(self, server: postgres.Server, directory: str, target: datetime) -> None:
        words = [f"--stanza={self.stanza}", f"--config={self.config}", f"--pg1-path={directory}", "--type=time"]
        words += [f"--target={target:%Y-%m-%d %H:%M:%S.%f}+00", "--target-action=promote", "--archive-mode=off"]
        self._execute(server, "pgbackrest", *words, "--log-level-console=warn", "restore")

    def _start(self, server: postgres.Server, directory: str) -> None:
        for name, text in (
            # What ALTER SYSTEM has set wins over postgresql.conf, and the last line wins over earlier ones.
            ("postgresql.auto.conf", _CONFIGURATION.format(directory=directory)),
            ("postgresql.conf", ""),
            ("rollback_hba.conf", "local all all trust\n"),
            ("rollback_ident.conf", ""),
        ):
            self._execute(server, "sh", "-c", 'printf %s "$1" >> "$0"', os.path.join(directory, name), text)
        log = os.path.join(directory, _LOG)
        wait = ["-w", "-t", str(max(1, int(server.deadline.left()))), "-l", log]
        self._execute(server, os.path.join(self.bin_dir, "pg_ctl"), "-D", directory, *wait, "start", log=log)

    def _discard_leftovers(self, server: postgres.Server) -> None:
        names = os.listdir(self.work_dir) if os.path.isdir(self.work_dir) else []
        for name in names:
            if name.startswith(_SIDE):
                self._discard(server, os.path.join(self.work_dir, name))

    def _discard(self, server: postgres.Server, directory: str) -> None:
        if os.path.exists(os.path.join(directory, "postmaster.pid")):
            stop = [*self.as_user, f"{self.bin_dir}/pg_ctl", "-D", directory, "-m", "immediate", "-w", "stop"]
            command.execute("pg_ctl", stop, "/", _environment(), server.deadline)
        self._execute(server, "rm", "-rf", "--", directory)

    def _execute(self, server: postgres.Server, *argv: str, log: str = "") -> None:
        name = os.path.basename(argv[0])
        code, output = command.execute(name, [*self.as_user, *argv], "/", _environment(), server.deadline)
        if code != 0:
            raise Held(f"{name} ended with {code}: {command.tail(output + _read(log))}")


def _environment() -> dict[str, str]:
    return {**command.kept_environment(), "LC_ALL": "C"}


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _side_server(server: postgres.Server, directory: str) -> postgres.Server:
    where = f"host={quote(directory, safe='')}&port=5432"
    url = f"postgresql://{quote(server.role, safe='')}@/{quote(server.database, safe='')}?{where}"
    return postgres.Server(url, server.deadline.left())


def _await_end_of_recovery(side: postgres.Server, directory: str) -> None:
    """Wait until the side cluster has replayed what it is to replay, and accepts connections."""
    said = ""
    for _attempt in side.deadline.attempts(0.2, longest=2):
        if not os.path.exists(os.path.join(directory, "postmaster.pid")):
            said = _read(os.path.join(directory, _LOG))
            break
        try:
            with side.connect() as connection:
                connection.execute("SELECT 1")
            return
        except RollbackError as error:
            said = str(error)
    raise Held(f"the side cluster has not come up as it was then: {command.tail(said)}")


def point_in_time(text: str) -> datetime:
    """A time with its time zone, not in the future, in UTC."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise BadInput(f"point_in_time: {text[:80]!r} is not a time with its zone, such as 2026-11-25T08:12:00+00:00")
    if moment > datetime.now(timezone.utc):
        raise BadInput(f"point_in_time: {text} is in the future")
    return moment.astimezone(timezone.utc)


def archive_until_now(server: postgres.Server) -> None:
    """Have the write-ahead log archived up to now, and a commit later than any that was asked for."""
    with server.connect() as connection:
        connection.execute("SELECT pg_current_xact_id()")
        segment = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()[0]
        archived = "SELECT coalesce(last_archived_wal >= %s, false), last_failed_wal FROM pg_stat_archiver"
        for _attempt in server.deadline.attempts(0.2, longest=2):
            done, failed = connection.execute(archived, (segment,)).fetchone()
            if done:
                return
    raise Held(f"the write-ahead log is not archived up to {segment} (last failure: {failed or 'none'})")
