# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A change of the database in one transaction: under Prisma's own lock, without making readers wait, never in doubt."""
from __future__ import annotations

import contextlib
from typing import Any, Callable, NamedTuple

from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Refused, Unknown
from ansible_collections.marketsage.rollback.plugins.module_utils.grammar import quoted
from ansible_collections.marketsage.rollback.plugins.module_utils.library import library
from ansible_collections.marketsage.rollback.plugins.module_utils.prisma import Database, hung_up_after, read_only

# What `prisma migrate deploy` and `resolve` hold; from the source of its schema engine.
PRISMA_LOCK = 72707369
# While a change waits for a table, everybody who comes later waits behind it.
_LOCK_MILLISECONDS = 500
# PostgreSQL ends an autovacuum that is in the way, but only for who has waited for deadlock_timeout, 1 s.
_LOCK_MILLISECONDS_BEHIND_AUTOVACUUM = 1500
# How long, at most, the probe may take to come in while everybody waits for the locks.
_PROBE_SECONDS = 2
# What an attempt gets that begins when time is up: it has yet to find the locks free.
_LEAST_SECONDS_TO_WORK = 5
# A controller that vanished without a word must not leave the tables locked.
_IDLE_SECONDS = 15
# How long to ask, at least, what became of a COMMIT that was not answered.
_ASK_SECONDS = 30
_GONE = ("57P01", "57P02", "57P03")

_TABLE_HOLDERS = """
SELECT coalesce(a.pid, 0), a.usename, a.application_name, a.state, a.query_start, a.backend_type
FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
WHERE l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
  AND l.relation = ANY (SELECT to_regclass(name) FROM unnest(%s::text[]) AS name)
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 5"""
_PRISMA_LOCK_HOLDERS = """
SELECT a.pid, a.usename, a.application_name, a.state, a.query_start, a.backend_type
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.granted AND l.locktype = 'advisory' AND l.classid = 0 AND l.objid = %s
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


class Holder(NamedTuple):
    """A session that is in the way. What it asks is not told: it may be data."""

    pid: int
    user: str | None
    application: str | None
    state: str | None
    since: Any
    kind: str | None

    def __str__(self) -> str:
        if not self.pid:
            return "a prepared transaction (see pg_prepared_xacts)"
        since = f" since {self.since.isoformat(timespec='seconds')}" if self.since else ""
        return f"pid {self.pid} of {self.user or self.kind} ({self.application or self.kind}), {self.state}{since}"


class _Busy(Exception):
    """A lock was not to be had this time."""

    def __init__(self, what: str, holders: list[Holder]) -> None:
        super().__init__(f"{what} is held by {'; '.join(map(str, holders)) or 'somebody who has let go since'}")
        self.behind_autovacuum = bool(holders) and all(holder.kind == "autovacuum worker" for holder in holders)


class _Undone(Exception):
    """The connection was lost and the transaction was rolled back."""


class Transaction:
    """One change: `work(cursor)` in a transaction, tried again until it is committed or `seconds` have passed.

    `tables` are locked against everybody before it, and `shut_out` has those that another session was then seen unable
    to write; `about_to_commit` is called with the transaction's id.
    """

    def __init__(
        self, where: Database, seconds: float, tables: list[tuple[str, str]], about_to_commit: Callable[[str], Any]
    ) -> None:
        self._where = where
        self._deadline = Deadline(seconds)
        self._tables = [quoted(*table) for table in sorted(tables)]
        self._about_to_commit = about_to_commit
        self._lock_milliseconds = _LOCK_MILLISECONDS
        self._psycopg = library("psycopg", "changing the database")
        self.shut_out: list[str] = []

    def run(self, work: Callable[[Any], Any]) -> Any:
        """What `work` returned in the transaction that was committed; Refused where none was."""
        obstacle: Exception | None = None
        for _attempt in self._deadline.attempts(0.5, longest=5):
            try:
                return self._attempt(work)
            except _Busy as busy:
                behind = busy.behind_autovacuum
                self._lock_milliseconds = _LOCK_MILLISECONDS_BEHIND_AUTOVACUUM if behind else _LOCK_MILLISECONDS
                obstacle = busy
            except _Undone as undone:
                obstacle = undone
        raise Refused(
            f"nothing was changed in the database within {self._deadline.seconds:g} s: {obstacle}",
            "End what is in the way, or wait for it, and run this again.",
        )

    def _attempt(self, work: Callable[[Any], Any]) -> Any:
        try:
            connection = self._connect(max(2, min(10, int(self._deadline.left()))))
            with hung_up_after(self._seconds_to_work() + 1, connection):
                try:
                    result, number = self._until_commit(connection, work)
                    self._commit(connection, number)
                    return result
                finally:
                    connection.close()
        except self._psycopg.Error as error:
            self._explain(error)
            raise

    def _connect(self, seconds: int) -> Any:
        name = "marketsage.rollback"
        return self._psycopg.connect(
            self._where.url, connect_timeout=seconds, application_name=name, prepare_threshold=None
        )

    def _until_commit(self, connection: Any, work: Callable[[Any], Any]) -> tuple[Any, str | None]:
        cursor = connection.cursor()
        # The database may be read-only by default: that is how it is fenced.
        cursor.execute("SET TRANSACTION READ WRITE")
        for setting, value in self._settings().items():
            cursor.execute("SELECT set_config(%s, %s, true)", (setting, value))
        self._lock(connection, cursor)
        self._prove_shut_out()
        result = work(cursor)
        cursor.execute("SELECT pg_current_xact_id_if_assigned()::text")
        number = cursor.fetchone()[0]
        if number:
            self._about_to_commit(number)
        return result, number

    def _seconds_to_work(self) -> float:
        return max(self._deadline.left(), _LEAST_SECONDS_TO_WORK)

    def _settings(self) -> dict[str, str]:
        return {
            "search_path": quoted(self._where.schema),
            "lock_timeout": f"{self._lock_milliseconds}ms",
            "statement_timeout": f"{int(self._seconds_to_work() * 1000)}ms",
            "idle_in_transaction_session_timeout": f"{_IDLE_SECONDS}s",
        }

    def _lock(self, connection: Any, cursor: Any) -> None:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", (PRISMA_LOCK,))
        if not cursor.fetchone()[0]:
            cursor.execute(_PRISMA_LOCK_HOLDERS, (PRISMA_LOCK,))
            raise _Busy("Prisma's lock for migrations", [Holder(*row) for row in cursor.fetchall()])
        if not self._tables:
            return
        try:
            # Readers wait for all of these locks together no longer than for one.
            cursor.execute(f"SET LOCAL statement_timeout = {self._lock_milliseconds}")
            cursor.execute(f"LOCK TABLE {', '.join(self._tables)} IN ACCESS EXCLUSIVE MODE")
            cursor.execute(f"SET LOCAL statement_timeout = {int(self._seconds_to_work() * 1000)}")
        except (self._psycopg.errors.LockNotAvailable, self._psycopg.errors.QueryCanceled):
            raise self._busy(connection) from None

    def _prove_shut_out(self) -> None:
        """A session of its own asks for what every INSERT, UPDATE and DELETE takes first, and has to be refused it.

        A maintenance page stops no job in the background; this lock stops every session, whatever its role.
        """
        if not self._tables:
            return
        probe = self._connect(_PROBE_SECONDS)
        with hung_up_after(_PROBE_SECONDS, probe), contextlib.closing(probe):
            self.shut_out = [table for table in self._tables if not self._could_write(probe, table)]
        writable = sorted(set(self._tables) - set(self.shut_out))
        if writable:
            raise Refused(f"{', '.join(writable)}: another session could still write there, so nothing was changed")

    def _could_write(self, probe: Any, table: str) -> bool:
        try:
            probe.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE NOWAIT")
        except self._psycopg.errors.LockNotAvailable:
            return False
        finally:
            probe.rollback()
        return True

    def _busy(self, connection: Any) -> _Busy:
        connection.rollback()
        cursor = connection.cursor()
        cursor.execute(_TABLE_HOLDERS, (self._tables,))
        return _Busy(f"one of {', '.join(self._tables)}", [Holder(*row) for row in cursor.fetchall()])

    # -- what became of it

    def _explain(self, error: Any) -> None:
        """Raise what an error before COMMIT means; the transaction is rolled back in any case."""
        errors = self._psycopg.errors
        if isinstance(error, (errors.LockNotAvailable, errors.DeadlockDetected)):
            raise _Busy(f"something that is needed ({_said(error)})", []) from None
        if error.sqlstate is None or error.sqlstate in _GONE or error.sqlstate.startswith("08"):
            raise _Undone(f"the connection was lost ({_said(error)})") from None
        if isinstance(error, errors.IdleInTransactionSessionTimeout):
            raise _Undone(_said(error)) from None
        raise Refused(f"PostgreSQL refused it, and nothing was changed: {_said(error)}") from None

    def _commit(self, connection: Any, number: str | None) -> None:
        try:
            connection.commit()
        except self._psycopg.Error as error:
            if error.sqlstate and error.sqlstate not in _GONE:
                raise
            if number and not self._was_committed(number):
                raise _Undone("the connection was lost at COMMIT, and the server says it was rolled back") from None

    def _was_committed(self, number: str) -> bool:
        """What the server says of a transaction whose COMMIT was not answered."""
        for _attempt in Deadline(max(_ASK_SECONDS, self._deadline.left())).attempts(0.2, longest=2):
            try:
                with read_only(self._where, 10) as cursor:
                    status = _status(cursor, number)
            except Unknown:
                continue
            if status in ("committed", "aborted"):
                return status == "committed"
        raise Unknown(
            f"the reply to COMMIT was lost and the database cannot be asked. Was transaction {number} committed? "
            f"SELECT pg_xact_status('{number}') in that database tells",
            "Ask it, then run this again: it reads what is there first.",
        )


def _status(cursor: Any, number: str) -> str | None:
    """committed, aborted or in progress; None where the server no longer knows."""
    psycopg = library("psycopg", "changing the database")
    try:
        cursor.execute("SELECT pg_xact_status(%s::xid8)", (number,))
    except psycopg.errors.InvalidParameterValue:
        # A number that the server has yet to give: it crashed before this transaction had reached the disk.
        return "aborted"
    status: str | None = cursor.fetchone()[0]
    return status


def _said(error: Any) -> str:
    """PostgreSQL's message without its detail, which may hold a row's values."""
    return " ".join(str(error.diag.message_primary or error).split())
