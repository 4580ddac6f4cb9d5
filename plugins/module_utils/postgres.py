# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A PostgreSQL server as its administrator sees it: connections, databases and their settings, sessions."""
from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from ansible_collections.marketsage.rollback.plugins.module_utils import prisma
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Held, Unknown
from ansible_collections.marketsage.rollback.plugins.module_utils.library import library

# Commands about a database are given from another one, which every server has.
MAINTENANCE = "postgres"
APPLICATION_NAME = "marketsage.rollback"
# Settings that are lists: their elements are quoted one by one. See pg_dump's variable_is_guc_list_quote().
_LISTS = (
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
)


class Server:
    """The server that a URL of Prisma's leads to, and the database that it names."""

    def __init__(self, url: str, seconds: float, name: str = "database_url_file") -> None:
        where = prisma.database(url, name)
        conninfo = library("psycopg", "administering the database").conninfo
        self._parameters = conninfo.conninfo_to_dict(where.url)
        self.url = url
        self.database = str(self._parameters["dbname"])
        self.role = str(self._parameters.get("user", ""))
        self.password = str(self._parameters.get("password", ""))
        self.deadline = Deadline(seconds)

    def conninfo(self, database: str, **parameters: Any) -> str:
        conninfo = library("psycopg", "administering the database").conninfo
        return str(conninfo.make_conninfo(**{**self._parameters, "dbname": database, **parameters}))

    def url_of(self, database: str) -> str:
        """The URL as Prisma takes it, for another database of this server."""
        return urlunsplit(urlsplit(self.url)._replace(path="/" + quote(database, safe="")))

    @contextmanager
    def connect(self, database: str = MAINTENANCE) -> Iterator[Any]:
        """A connection on which each statement is a transaction, unless one is begun; bound by the deadline."""
        psycopg = library("psycopg", "administering the database")
        seconds = max(1.0, self.deadline.left())
        conninfo = self.conninfo(database, connect_timeout=max(2, int(min(seconds, 10))))
        with told(f"database {database}"):
            connection = psycopg.connect(
                conninfo, autocommit=True, application_name=APPLICATION_NAME, prepare_threshold=None
            )
            with connection, prisma.hung_up_after(seconds, connection):
                connection.execute(f"SET statement_timeout = {int(seconds * 1000)}")
                yield connection


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn PostgreSQL's errors into Held, or Unknown where the connection was lost and with it the answer."""
    psycopg = library("psycopg", "administering the database")
    try:
        yield
    except psycopg.Error as error:
        kind = Unknown if error.sqlstate is None and isinstance(error, psycopg.OperationalError) else Held
        raise kind(f"{what}: {' '.join(str(error).split())}") from None


def compose(command: str, *names: str, **literals: str) -> Any:
    """SQL with each {} replaced by a quoted identifier and each {name} by a quoted literal."""
    sql = library("psycopg.sql", "administering the database")
    identifiers = [sql.Identifier(name) for name in names]
    return sql.SQL(command).format(*identifiers, **{name: sql.Literal(text) for name, text in literals.items()})


def databases(connection: Any) -> dict[str, dict[str, Any]]:
    """Every database of the server with all columns of pg_database, as this version of PostgreSQL has them."""
    query = (
        "SELECT datname, to_jsonb(d) || jsonb_build_object('owner', pg_get_userbyid(datdba),"
        " 'encoding', pg_encoding_to_char(encoding), 'oid', d.oid::bigint, 'tablespace', spcname,"
        " 'comment', shobj_description(d.oid, 'pg_database'))"
        " FROM pg_database d JOIN pg_tablespace t ON t.oid = dattablespace"
    )
    return dict(connection.execute(query).fetchall())


def existing(connection: Any, database: str) -> dict[str, Any]:
    found = databases(connection).get(database)
    if found is None:
        raise BadInput(f"database_url_file: the server has no database {database}")
    return found


def settings(connection: Any, database: str) -> dict[str, dict[str, str]]:
    """What ALTER DATABASE and ALTER ROLE ... IN DATABASE have set; the role "" stands for the database itself."""
    query = (
        "SELECT coalesce(rolname, ''), entry FROM pg_db_role_setting"
        " JOIN pg_database d ON d.oid = setdatabase LEFT JOIN pg_roles r ON r.oid = setrole,"
        " unnest(setconfig) entry WHERE datname = %s"
    )
    found: dict[str, dict[str, str]] = {}
    for role, entry in connection.execute(query, (database,)).fetchall():
        name, value = entry.split("=", 1)
        found.setdefault(role, {})[name] = value
    return found


def change_setting(connection: Any, database: str, role: str, name: str, value: str | None) -> None:
    """Set one setting of a database, or of a role in it; None resets it."""
    sql = library("psycopg.sql", "administering the database")
    subject = compose("ROLE {} IN DATABASE {}", role, database) if role else compose("DATABASE {}", database)
    # The name of an extension's setting has a dot between two identifiers.
    setting = sql.SQL(".").join(sql.Identifier(part) for part in name.split("."))
    change = sql.SQL("RESET {}").format(setting)
    if value is not None:
        change = sql.SQL("SET {} TO {}").format(setting, _value(name, value))
    connection.execute(sql.SQL("ALTER {} {}").format(subject, change))


def _value(name: str, value: str) -> Any:
    sql = library("psycopg.sql", "administering the database")
    if name not in _LISTS:
        return sql.Literal(value)
    elements = next(csv.reader([value], skipinitialspace=True), [])
    return sql.SQL(", ").join(sql.Literal(element) for element in elements or [""])


def sessions(connection: Any, *names: str) -> int:
    """How many client sessions these databases have, our own left out."""
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = ANY(%s) AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    return int(connection.execute(query, (list(names),)).fetchone()[0])


def end_sessions(connection: Any, deadline: Deadline, *names: str) -> int:
    """End every client session of these databases, and wait until they are gone; return how many there were."""
    query = (
        "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = ANY(%s) AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    ended: set[int] = set()
    for _attempt in deadline.attempts(0.05, longest=1):
        ended.update(row[0] for row in connection.execute(query, (list(names),)).fetchall())
        if sessions(connection, *names) == 0:
            return len(ended)
    raise Held(f"{', '.join(names)}: after {deadline.seconds:g} s there are still sessions that do not end")
