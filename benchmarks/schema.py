"""Taking back a migration that added a table or a column, against pg_dump -Fc and against the bare statement.

For each number of rows, in one run on one PostgreSQL: the median seconds and the ratios. Then the longest delay of a
reader while the rollback waits behind a session that holds the table.
"""
from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from ansible_collections.marketsage.rollback.plugins.module_utils import prisma, prisma_cli, schema_rollback
from ansible_collections.marketsage.rollback.sandbox.servers import postgres_tool

_AS_ORDINARY_USER = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
INIT = 'CREATE TABLE "Contact" (id serial PRIMARY KEY, email text NOT NULL, name text NOT NULL);'
MIGRATIONS = {
    "table": 'CREATE TABLE "Note" (id serial PRIMARY KEY, text text NOT NULL);',
    "column": 'ALTER TABLE "Contact" ADD COLUMN phone text;',
}
FILL = {
    "table": "INSERT INTO \"Note\" (text) SELECT 'note ' || n FROM generate_series(1, %s) AS n",
    "column": "UPDATE \"Contact\" SET phone = '+49 30 ' || id WHERE id <= %s",
}
BARE = {
    "table": 'DROP TABLE "Note"',
    "column": 'CREATE TABLE copy AS SELECT id, phone FROM "Contact"; ALTER TABLE "Contact" DROP COLUMN phone',
}
LEDGER = """CREATE TABLE _prisma_migrations (id text, checksum text, finished_at timestamptz, migration_name text,
logs text, rolled_back_at timestamptz, started_at timestamptz NOT NULL, applied_steps_count integer)"""


@contextmanager
def server(directory: Path) -> Iterator[str]:
    """The URL of a PostgreSQL of its own, as it is installed, without a database's name."""
    data, control = directory / "data", [*_AS_ORDINARY_USER, postgres_tool("pg_ctl"), "-D", str(directory / "data")]
    subprocess.run([*_AS_ORDINARY_USER, postgres_tool("initdb"), "-D", str(data), "-U", "bench", "--auth=trust"],
                   check=True, stdout=subprocess.DEVNULL)  # fmt: skip
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c max_wal_size=4GB"
    subprocess.run([*control, "-w", "-o", options, "-l", str(directory / "log"), "start"],
                   check=True, stdout=subprocess.DEVNULL)  # fmt: skip
    try:
        yield f"postgresql://bench@127.0.0.1:{port}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL)


class Subject:
    """A database of so many rows at a release that has one migration more than the one it goes back to."""

    def __init__(self, directory: Path, url: str, kind: str, rows: int) -> None:
        self.name, self.server, self.kind, self.rows = f"{kind}_{rows}", url, kind, rows
        self.directory = directory / self.name
        self.old = self._release(self.directory / "old", {"1_init": INIT})
        self.new = self._release(self.directory / "new", {"1_init": INIT, "2_change": MIGRATIONS[kind]})
        self.execute(f"CREATE DATABASE {self.name}", "postgres")
        for statement in (LEDGER, INIT, MIGRATIONS[kind]):
            self.execute(statement)
        for name, sql in (("1_init", INIT), ("2_change", MIGRATIONS[kind])):
            digest = hashlib.sha256(sql.encode()).hexdigest()
            self.execute("INSERT INTO _prisma_migrations SELECT 'x', %s, now(), %s, '', NULL, now(), 1",
                         self.name, digest, name)  # fmt: skip
        contacts = "SELECT n || '@x', 'Contact ' || n FROM generate_series(1, %s) AS n"
        self.execute(f'INSERT INTO "Contact" (email, name) {contacts}', self.name, rows)
        self.execute(FILL[kind], self.name, rows)
        self.execute("VACUUM ANALYZE")

    def _release(self, directory: Path, migrations: dict[str, str]) -> prisma.Release:
        for name, sql in migrations.items():
            path = directory / "prisma" / "migrations" / name
            path.mkdir(parents=True)
            (path / "migration.sql").write_text(sql)
        return prisma.Release(str(directory))

    def execute(self, statement: str, database: str = "", *values: object) -> None:
        with psycopg.connect(f"{self.server}/{database or self.name}", autocommit=True) as connection:
            connection.execute(statement, values or None)

    def copy(self, number: int) -> str:
        """A database like it, to be changed."""
        name = f"{self.name}_{number}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {self.name}", "postgres")
        self.execute("CHECKPOINT", "postgres")
        return name

    def drop(self, name: str) -> None:
        self.execute(f"DROP DATABASE {name} WITH (FORCE)", "postgres")

    def roll_back(self, name: str, seconds: float = 600) -> None:
        where = prisma.database(f"{self.server}/{name}")
        with prisma.read_only(where, seconds) as cursor:
            ledger = prisma.read_ledger(cursor, "public")
        wanted = schema_rollback.Wanted(self.old, self.new, [self.new], "public")
        cli = prisma_cli.Cli([], {}, where.url, seconds)
        plan = schema_rollback.plan(where, ledger or {}, wanted, cli, "20261124T031500Z-backend-3f9a")
        schema_rollback.apply(where, plan, wanted, seconds, lambda _number: None)

    def bare(self, name: str) -> None:
        self.execute(BARE[self.kind], name)

    def dump(self, name: str) -> None:
        file = self.directory / "dump"
        subprocess.run([postgres_tool("pg_dump"), "-Fc", "-f", str(file), f"{self.server}/{name}"], check=True)
        file.unlink()


def seconds_of(subject: Subject, work: Callable[[str], None], rounds: int) -> float:
    took = []
    for number in range(rounds):
        name = subject.copy(number)
        began = time.perf_counter()
        work(name)
        took.append(time.perf_counter() - began)
        subject.drop(name)
    return statistics.median(took)


def compare(subject: Subject, rounds: int) -> None:
    ours, bare, dump = (seconds_of(subject, way, rounds) for way in (subject.roll_back, subject.bare, subject.dump))
    print(f"{subject.rows:>10} {subject.kind:7}{ours:10.3f} s{bare:10.3f} s{dump:10.3f} s"
          f"{ours / bare:10.2f}{ours / dump:10.2f}", flush=True)  # fmt: skip


def longest_delay(subject: Subject, seconds: float) -> float:
    """The longest that a reader waited while the rollback waited for a session that held the table for `seconds`."""
    name = subject.copy(0)
    delays: list[float] = []
    with psycopg.connect(f"{subject.server}/{name}") as holder:
        holder.execute('SELECT * FROM "Contact" LIMIT 1')
        threading.Timer(seconds, holder.rollback).start()
        rollback = threading.Thread(target=subject.roll_back, args=(name,))
        rollback.start()
        with psycopg.connect(f"{subject.server}/{name}", autocommit=True) as reader:
            while rollback.is_alive():
                began = time.perf_counter()
                reader.execute('SELECT id FROM "Contact" LIMIT 1')
                delays.append(time.perf_counter() - began)
                time.sleep(0.005)
        rollback.join()
    subject.drop(name)
    return max(delays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--blocker", type=float, default=60, help="Seconds that the table is held.")
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="rollback-bench-"))
    directory.chmod(0o711)
    try:
        with server(directory) as url:
            print(f"{'rows':>10} {'dropped':7}{'rollback':>12}{'bare':>12}{'pg_dump':>12}{'/ bare':>10}{'/ dump':>10}")
            for rows in given.rows:
                for kind in MIGRATIONS:
                    subject = Subject(directory, url, kind, rows)
                    compare(subject, given.rounds)
                    subject.drop(subject.name)
            delay = longest_delay(Subject(directory / "blocked", url, "column", given.rows[0]), given.blocker)
            print(f"longest delay of a reader behind a session of {given.blocker:g} s: {delay:.2f} s")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
