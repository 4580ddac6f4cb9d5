# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Prisma Migrate: its ledger in the database, the migrations of a release, and whether the two can live together.

`prisma migrate status` is never asked: it says "up to date" of a database that is ahead of the release.
"""
from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ansible_collections.marketsage.rollback.plugins.module_utils.ddl import (
    ADDITIVE,
    DESTRUCTIVE,
    UNKNOWN,
    Finding,
    SchemaChange,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Unknown
from ansible_collections.marketsage.rollback.plugins.module_utils.files import read_json
from ansible_collections.marketsage.rollback.plugins.module_utils.library import library

EQUAL = "equal"
BEHIND = "behind"
LEDGER = "_prisma_migrations"

# Parameters of a URL that only Prisma understands; libpq refuses what it does not know.
_PRISMA_ONLY = (
    "schema",
    "connection_limit",
    "pool_timeout",
    "pgbouncer",
    "socket_timeout",
    "statement_cache_size",
    "max_connection_lifetime",
    "max_idle_connection_lifetime",
    "single_use_connections",
    "sslaccept",
    "sslidentity",
    "sslpassword",
)
# Prisma's sslcert is the authority's certificate; libpq's is the client's own.
_RENAMED = {"sslcert": "sslrootcert"}
_COLUMNS = ("migration_name", "checksum", "started_at", "finished_at", "rolled_back_at")


class Database(NamedTuple):
    """Where the data is, as libpq takes it, and the schema that Prisma works in."""

    url: str
    schema: str


def database(url: str, name: str = "database_url_file") -> Database:
    """From Prisma's URL. Its text is never shown: it may carry a password."""
    try:
        parts = urlsplit(url)
        port_is_a_number = parts.port is None or parts.port > 0
    except ValueError:
        port_is_a_number = False
    if not port_is_a_number or parts.scheme not in ("postgresql", "postgres") or not parts.path.strip("/"):
        raise BadInput(f"{name}: its content is not a URL such as postgresql://user:password@host:5432/database")
    parameters = parse_qsl(parts.query, keep_blank_values=True)
    schema = dict(parameters).get("schema") or "public"
    kept = [(_RENAMED.get(key, key), value) for key, value in parameters if key not in _PRISMA_ONLY]
    plain = urlunsplit(parts._replace(query=urlencode(kept)))
    psycopg = library("psycopg", "reading the database")
    try:
        psycopg.conninfo.conninfo_to_dict(plain)
    except psycopg.ProgrammingError:
        raise BadInput(f"{name}: libpq cannot read its URL; an unknown parameter, or not percent-encoded?") from None
    return Database(plain, schema)


@contextmanager
def read_only(where: Database, seconds: float) -> Iterator[Any]:
    """A cursor in a transaction in which PostgreSQL itself refuses every write; Unknown where it cannot be had."""
    psycopg = library("psycopg", "reading the database")
    try:
        connection = psycopg.connect(
            where.url,
            connect_timeout=max(2, int(seconds)),
            application_name="marketsage.rollback",
            prepare_threshold=None,
        )
        with connection, hung_up_after(seconds, connection):
            connection.read_only = True
            cursor = connection.cursor()
            cursor.execute(f"SET LOCAL statement_timeout = {int(seconds * 1000)}")
            yield cursor
    except psycopg.Error as error:
        raise Unknown(f"the database cannot be read: {' '.join(str(error).split())}") from None


@contextmanager
def hung_up_after(seconds: float, connection: Any) -> Iterator[None]:
    """End the connection from this side when time is up: a server that stands still heeds no time-out of its own."""

    def hang_up() -> None:
        with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds + 1, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Row(NamedTuple):
    """One attempt at one migration, as the ledger has it."""

    name: str
    checksum: str
    started_at: Any
    finished_at: Any
    rolled_back_at: Any

    @property
    def applied(self) -> bool:
        return self.finished_at is not None and self.rolled_back_at is None

    @property
    def failed(self) -> bool:
        return self.finished_at is None and self.rolled_back_at is None


def read_ledger(cursor: Any, schema: str) -> dict[str, list[Row]] | None:
    """The attempts at each migration, in the order they were made; None where there is no ledger."""
    sql = library("psycopg.sql", "reading the database")
    cursor.execute("SELECT to_regclass(format('%%I.%%I', %s::text, %s::text))", (schema, LEDGER))
    if cursor.fetchone()[0] is None:
        return None
    columns = sql.SQL(", ").join(sql.Identifier(column) for column in _COLUMNS)
    table = sql.Identifier(schema, LEDGER)
    cursor.execute(sql.SQL("SELECT {} FROM {} ORDER BY started_at, id").format(columns, table))
    attempts: dict[str, list[Row]] = {}
    for row in cursor.fetchall():
        attempts.setdefault(row[0], []).append(Row(*row))
    return attempts


class Release:
    """The migrations that one release has in its prisma/migrations."""

    def __init__(self, path: str, name: str = "release") -> None:
        self.path = os.path.realpath(path)
        self._directory = os.path.join(self.path, "prisma", "migrations")
        if not os.path.isdir(self._directory):
            raise BadInput(f"{name}: {path} has no prisma/migrations; give the directory of a release")
        self.id = self._read_id(name)
        self.migrations = sorted(entry.name for entry in os.scandir(self._directory) if entry.is_dir())

    def _read_id(self, name: str) -> str:
        """Its own id where it was built as a release; a plain checkout goes by the name of its directory."""
        file = os.path.join(self.path, "release.json")
        try:
            return str(read_json(file, {"release": os.path.basename(self.path)})["release"])
        except (ValueError, KeyError, TypeError):
            raise BadInput(f"{name}: {file} is not JSON with a field release") from None

    def sql(self, migration: str) -> bytes | None:
        """The migration as it is in the release; None where it is not."""
        return self._file(migration, "migration.sql")

    def down_sql(self, migration: str) -> str | None:
        """What its authors checked in to undo it; None where they did not."""
        text = self._file(migration, "down.sql")
        return None if text is None else text.decode("utf-8", "replace")

    def _file(self, migration: str, name: str) -> bytes | None:
        try:
            with open(os.path.join(self._directory, migration, name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None


def releases_in(directory: str) -> list[Release]:
    """The releases below a directory: what has both a release.json and migrations."""
    if not os.path.isdir(directory):
        raise BadInput(f"releases_dir: {directory} is not a directory")
    paths = sorted(os.path.join(directory, name) for name in os.listdir(directory))
    return [Release(path, "releases_dir") for path in paths if _is_release(path)]


def _is_release(path: str) -> bool:
    return os.path.isfile(f"{path}/release.json") and os.path.isdir(f"{path}/prisma/migrations")


def has_checksum(sql: bytes, checksum: str) -> bool:
    """Whether the ledger's checksum is of this text; a checkout may have changed its line ends, as Prisma knows."""
    lf = sql.replace(b"\r\n", b"\n")
    variants = (sql, lf, lf.replace(b"\n", b"\r\n"))
    # Rows of old versions lack leading zeros.
    return checksum.lstrip("0") in {hashlib.sha256(variant).hexdigest().lstrip("0") for variant in variants}


def state_of(attempts: list[Row], sql: bytes | None) -> str:
    """What became of one migration; `sql` is the target's text of it, None where the target has none."""
    if any(row.failed for row in attempts):
        return "failed"
    applied = [row for row in attempts if row.applied]
    if not applied:
        return "rolled_back" if attempts else "pending"
    if sql is None:
        return "unknown_to_release"
    return "applied" if has_checksum(sql, applied[-1].checksum) else "edited"


def states(ledger: dict[str, list[Row]], release: Release) -> list[dict[str, Any]]:
    """Every migration that the database or the release knows, by name, with its state and times."""
    known = []
    for name in sorted({*ledger, *release.migrations}):
        attempts = ledger.get(name, [])
        last = attempts[-1] if attempts else Row(name, "", None, None, None)
        known.append(
            {
                "name": name,
                "state": state_of(attempts, release.sql(name)),
                "started_at": _iso(last.started_at),
                "finished_at": _iso(last.finished_at),
                "rolled_back_at": _iso(last.rolled_back_at),
            }
        )
    return known


def _iso(time: Any) -> str | None:
    return time.isoformat() if time else None


@dataclass(frozen=True)
class Verdict:
    """Whether a release can run on the database as it is, and why."""

    verdict: str
    reasons: list[str]
    ahead: list[str]
    missing: list[str]


class Comparison(NamedTuple):
    """The ledger against a release: migrations that one of them lacks, and why the others cannot be trusted."""

    ahead: list[str]
    missing: list[str]
    unclear: list[str]


def compare(ledger: dict[str, list[Row]], target: Release) -> Comparison:
    """`ahead` is in the order in which the migrations were applied."""
    by_state: dict[str, list[str]] = {}
    for migration in states(ledger, target):
        by_state.setdefault(migration["state"], []).append(migration["name"])
    ahead = sorted(by_state.get("unknown_to_release", []), key=lambda name: _applied(ledger[name]).finished_at)
    missing = sorted(
        name for state in ("pending", "rolled_back") for name in by_state.get(state, []) if name in target.migrations
    )
    unclear = [f"{name}: failed halfway and was not resolved" for name in by_state.get("failed", [])]
    unclear += [f"{name}: is not what was applied to the database" for name in by_state.get("edited", [])]
    return Comparison(ahead, missing, unclear)


def judge(ledger: dict[str, list[Row]] | None, target: Release, sources: list[Release], schema: str) -> Verdict:
    """Compare the database with a target release; `sources` are releases that may have the SQL it is ahead by."""
    if ledger is None:
        return Verdict(UNKNOWN, [no_ledger(schema)], [], [])
    ahead, missing, unclear = compare(ledger, target)
    if unclear:
        return Verdict(UNKNOWN, unclear, ahead, missing)
    if missing:
        lacking = [f"{name}: the target needs it, the database lacks it" for name in missing]
        return Verdict(BEHIND, lacking, ahead, missing)
    return _judge_changes(_changes(ahead, ledger, sources, schema), ahead)


def no_ledger(schema: str) -> str:
    return f"the database has no {LEDGER} in schema {schema}: Prisma never migrated it, or it is another one"


def _changes(ahead: list[str], ledger: dict[str, list[Row]], sources: list[Release], schema: str) -> list[Finding]:
    change = SchemaChange(schema)
    not_found = []
    for name in ahead:
        sql = applied_sql(name, ledger, sources)
        if sql is None:
            not_found.append(Finding(UNKNOWN, f"{name}: no release at hand has its SQL as it was applied"))
        else:
            change.apply(name, sql)
    return not_found + change.findings()


def _applied(attempts: list[Row]) -> Row:
    return next(row for row in reversed(attempts) if row.applied)


def applied_sql(name: str, ledger: dict[str, list[Row]], sources: list[Release]) -> str | None:
    """A migration as it was applied; None where no release at hand has it."""
    checksum = _applied(ledger[name]).checksum
    texts = (source.sql(name) for source in sources)
    found = next((sql for sql in texts if sql is not None and has_checksum(sql, checksum)), None)
    return None if found is None else found.decode("utf-8", "replace")


def _judge_changes(findings: list[Finding], ahead: list[str]) -> Verdict:
    """One change the target cannot live with settles it, whatever is not known about the others."""
    if not ahead:
        return Verdict(EQUAL, [], [], [])
    effects = {finding.effect for finding in findings}
    worst = next((effect for effect in (DESTRUCTIVE, UNKNOWN) if effect in effects), ADDITIVE)
    told = [finding for finding in findings if worst == ADDITIVE or finding.effect != ADDITIVE]
    return Verdict(worst, [finding.words for finding in told], ahead, [])


def despite_drift(verdict: Verdict) -> Verdict:
    """On a database that was changed by hand the migrations no longer tell that a release can live with it."""
    if verdict.verdict != ADDITIVE:
        return verdict
    reason = "the database is not what the live release's schema.prisma says; see drift"
    return replace(verdict, verdict=UNKNOWN, reasons=[reason, *verdict.reasons])
