# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read-only mode of a database that nobody who can only log in is able to leave, and the way back.

A read-only default alone is no fence: open sessions do not have it, and any session unsets it. What an application's
role owns it can also grant itself again. So the door is shut: no role but a superuser may connect, and where the
application is a superuser, nobody may.
"""
from __future__ import annotations

import os
import re
from typing import Any, NamedTuple
from urllib.parse import quote

from ansible_collections.marketsage.rollback.plugins.module_utils import postgres, prisma
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Held, Unknown
from ansible_collections.marketsage.rollback.plugins.module_utils.files import (
    fsync_directory,
    read_json,
    write_atomically,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import canonical
from ansible_collections.marketsage.rollback.plugins.module_utils.library import library

READ_ONLY = "default_transaction_read_only"
_SHUT_OUT = re.compile("too many connections for database|is not currently accepting connections")
_PROBE_SECONDS = 10

State = dict


def read(connection: Any, database: str) -> State:
    """Who may connect, and each setting of READ_ONLY that counts in the database; the role "" is the database."""
    row = postgres.existing(connection, database)
    here = postgres.settings(connection, database)
    anywhere = (
        "SELECT rolname FROM pg_db_role_setting JOIN pg_roles r ON r.oid = setrole"
        f" WHERE setdatabase = 0 AND EXISTS (SELECT FROM unnest(setconfig) entry WHERE entry LIKE '{READ_ONLY}=%')"
    )
    # A role's own setting wins over the database's, and its setting in the database over both.
    roles = {"", *(role for (role,) in connection.execute(anywhere).fetchall())}
    roles.update(role for role, values in here.items() if READ_ONLY in values)
    return {
        "connections_allowed": row["datallowconn"],
        "connection_limit": row["datconnlimit"],
        "read_only": {role: here.get(role, {}).get(READ_ONLY) for role in sorted(roles)},
    }


def shut(state: State, superuser: bool) -> State:
    """`state` with the door shut and every default read-only; superusers are let in unless `superuser`."""
    return {
        "connections_allowed": state["connections_allowed"] and not superuser,
        "connection_limit": 0,
        "read_only": dict.fromkeys(state["read_only"], "on"),
    }


def is_shut(state: State) -> bool:
    return state["connection_limit"] == 0 or not state["connections_allowed"]


def apply(connection: Any, database: str, wanted: State) -> None:
    """Make the database's state the wanted one, in one transaction."""
    with connection.transaction():
        now = read(connection, database)
        connection.execute(
            postgres.compose(
                f"ALTER DATABASE {{}} WITH ALLOW_CONNECTIONS {wanted['connections_allowed']}"
                f" CONNECTION LIMIT {wanted['connection_limit']}",
                database,
            )
        )
        for role, value in wanted["read_only"].items():
            if now["read_only"].get(role) != value:
                postgres.change_setting(connection, database, role, READ_ONLY, value)


class Memory:
    """The state from before the fence, kept on this host until it is restored."""

    def __init__(self, state_dir: str, database: str) -> None:
        self._path = os.path.join(state_dir, f"fenced-{quote(database, safe='')}.json")

    def load(self) -> State | None:
        state: State | None = read_json(self._path, None)
        return state

    def keep(self, state: State) -> None:
        """Remember `state`, unless one is remembered: the first is what was there before any fence."""
        if self.load() is None:
            write_atomically(self._path, canonical(state))

    def forget(self) -> None:
        os.unlink(self._path)
        fsync_directory(os.path.dirname(self._path))


class Probe(NamedTuple):
    """What an attempt to write came to."""

    connected: bool
    wrote: bool
    said: str


class Application:
    """The application's way into the database."""

    def __init__(self, url: str, server: postgres.Server) -> None:
        self._server = postgres.Server(url, _PROBE_SECONDS, "application_url_file")
        if self._server.database != server.database:
            raise BadInput(
                f"application_url_file: it names database {self._server.database}, "
                f"and database_url_file {server.database}"
            )

    def is_superuser(self, connection: Any) -> bool:
        role = self._server.role
        row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
        if row is None:
            raise BadInput(f"application_url_file: the server has no role {role!r}")
        return bool(row[0])

    def try_to_write(self, rogue: bool) -> Probe:
        """Write as the application would and take it back; a `rogue` first unsets the read-only default."""
        psycopg = library("psycopg", "trying to write")
        conninfo = self._server.conninfo(self._server.database, connect_timeout=_PROBE_SECONDS)
        try:
            connection = psycopg.connect(conninfo, autocommit=True, prepare_threshold=None)
        except psycopg.OperationalError as error:
            return Probe(False, False, " ".join(str(error).split()))
        with connection, prisma.hung_up_after(_PROBE_SECONDS, connection):
            return _write(connection, rogue)


def _write(connection: Any, rogue: bool) -> Probe:
    psycopg = library("psycopg", "trying to write")
    try:
        if rogue:
            connection.execute(f"SET {READ_ONLY} = off")
        with connection.transaction(force_rollback=True):
            writable = connection.execute("SHOW transaction_read_only").fetchone()[0] == "off"
            try:
                connection.execute("CREATE TEMPORARY TABLE rollback_probe (written int)")
            except psycopg.errors.InsufficientPrivilege as error:
                return Probe(True, writable, str(error))
    except psycopg.Error as error:
        return Probe(True, False, " ".join(str(error).split()))
    return Probe(True, True, "a write succeeded")


def check_shut_out(probe: Probe) -> None:
    """Held where the application can come in; Unknown where it failed for a reason of its own."""
    if probe.connected:
        raise Held(f"the fence does not hold: the application's role can connect ({probe.said})")
    if not _SHUT_OUT.search(probe.said):
        raise Unknown(f"application_url_file: was it the fence that refused the application? It was told: {probe.said}")


def check_let_in(probe: Probe) -> None:
    if not probe.wrote:
        raise Held(f"the database is open again, but the application's role cannot write: {probe.said}")
