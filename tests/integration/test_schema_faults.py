"""Schema rollback while everything else goes on: writers, blockers, other deploys, kills, cut lines, restarts."""
from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils import schema_rollback, transaction
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Unknown
from ansible_collections.marketsage.rollback.tests.helpers import eventually
from databases import crash_and_restart
from prisma_releases import Prisma
from test_schema_rollback import FULL_NAME, FULL_NAME_MODEL, NOTES, NOTES_MODELS, Call, World

SECONDS = 60
KILLER = Path(__file__).with_name("kill_at.py")


@pytest.fixture
def world(tmp_path: Path, database_url: str, call_module: Call, run: dict[str, Any]) -> World:
    return World(tmp_path, database_url, Prisma.of_version(6), call_module, run)


@pytest.fixture
def renamed(world: World) -> World:
    world.deployed(FULL_NAME_MODEL, **{"2_full_name": FULL_NAME})
    world.execute("""INSERT INTO "Contact" (email, "fullName", phone) VALUES ('new@x', 'New One', '123')""")
    return world


def state(world: World) -> Any:
    """What must be the same whatever happened on the way; the archive's name and its times may differ."""
    names = world.execute(
        "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%%' AND nspname <> 'information_schema'"
    )
    archives = [name for (name,) in names if name.startswith("rollback_")]
    kept = [world.execute(f'SELECT id, phone FROM {name}."Contact_columns" ORDER BY id') for name in archives]
    return (
        world.execute('SELECT id, email, name FROM "Contact" ORDER BY id'),
        world.execute("SELECT migration_name FROM _prisma_migrations ORDER BY 1"),
        kept,
    )


UNDISTURBED = (
    [(1, "0@x", "old 0"), (2, "1@x", "old 1"), (3, "2@x", "old 2"), (4, "new@x", "New One")],
    [("1_init",)],
    [[(1, None), (2, None), (3, None), (4, "123")]],
)


class Writer(threading.Thread):
    """Writes numbered rows as an application of either release would, and remembers which were acknowledged."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.acknowledged, self.longest, self._ended = url, [], 0.0, threading.Event()

    def run(self) -> None:
        number = 0
        while not self._ended.is_set():
            with (
                contextlib.suppress(psycopg.OperationalError),
                psycopg.connect(self.url, autocommit=True) as connection,
            ):
                while not self._ended.is_set():
                    number += 1
                    self._write(connection, number)

    def _write(self, connection: psycopg.Connection[Any], number: int) -> None:
        for column in ("fullName", "name"):
            with contextlib.suppress(psycopg.errors.UndefinedColumn):
                began = time.monotonic()
                connection.execute(
                    f'INSERT INTO "Contact" (email, "{column}") VALUES (%s, %s)', (f"w{number}", f"writer {number}")
                )
                self.longest = max(self.longest, time.monotonic() - began)
                self.acknowledged.append(number)
                return

    def __enter__(self) -> Writer:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        self.join(SECONDS)


def test_no_acknowledged_row_is_lost_there_and_back(renamed: World) -> None:
    with Writer(renamed.url) as writer:
        eventually(lambda: len(writer.acknowledged) > 20)
        result = renamed.roll_back()
        assert not result.get("failed"), result
        seen = len(writer.acknowledged)
        eventually(lambda: len(writer.acknowledged) > seen + 20)
        forward = renamed.migrate("deployed", renamed.new, restore_archive=result["archive"])
        assert not forward.get("failed"), forward
        seen = len(writer.acknowledged)
        eventually(lambda: len(writer.acknowledged) > seen + 20)
    assert lost(renamed, writer, "fullName") == []


def lost(world: World, writer: Writer, column: str) -> list[int]:
    """Acknowledged rows that are not there, or not with what was written."""
    rows = dict(world.execute(f"""SELECT email, "{column}" FROM "Contact" WHERE email LIKE 'w%'"""))
    return [number for number in writer.acknowledged if rows.get(f"w{number}") != f"writer {number}"]


# --- locks


def test_nobody_else_could_write_what_was_changed(renamed: World) -> None:
    assert renamed.roll_back()["shut_out"] == ['"public"."Contact"']


def test_what_another_session_could_still_write_is_not_changed(
    renamed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction.Transaction, "_lock", lambda *_arguments: None)
    before = renamed.contents()
    result = renamed.roll_back()
    assert result["exit_code"] == 3 and '"public"."Contact": another session could still write there' in result["msg"]
    assert renamed.contents() == before


@contextlib.contextmanager
def holding(url: str, *sql: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url, application_name="nightly report") as holder:
        for each in sql:
            holder.execute(each)
        yield holder


def test_a_blocker_is_waited_for_and_readers_are_let_through(renamed: World) -> None:
    delays: list[float] = []
    ended = threading.Event()

    def read() -> None:
        with psycopg.connect(renamed.url, autocommit=True) as reader:
            while not ended.is_set():
                began = time.monotonic()
                reader.execute('SELECT count(*) FROM "Contact"')
                delays.append(time.monotonic() - began)
                time.sleep(0.01)

    reader = threading.Thread(target=read)
    with holding(renamed.url, 'SELECT * FROM "Contact"') as holder:
        threading.Timer(8, holder.rollback).start()
        reader.start()
        began = time.monotonic()
        result = renamed.roll_back()
        took = time.monotonic() - began
    ended.set()
    reader.join(SECONDS)
    assert not result.get("failed"), result
    assert state(renamed) == UNDISTURBED
    # Behind an ACCESS EXCLUSIVE lock that waits for the blocker they would have read nothing for seconds.
    assert took > 8 and max(delays) < 4, (took, max(delays))
    print(f"longest delay of a reader: {max(delays):.3f} s")


def test_who_is_in_the_way_is_named_when_time_runs_out(renamed: World) -> None:
    before = renamed.contents()
    with holding(renamed.url, """SELECT * FROM "Contact" WHERE email <> 'secret@x'""") as holder:
        result = renamed.roll_back(wait=2)
        pid = holder.info.backend_pid
    assert result["exit_code"] == 3 and f"pid {pid} of app (nightly report), idle in transaction since" in result["msg"]
    assert "secret" not in json.dumps(result)
    assert renamed.contents() == before


def test_a_deploy_that_holds_prismas_lock_is_waited_for(renamed: World) -> None:
    before = renamed.contents()
    with holding(renamed.url, "SELECT pg_advisory_lock(72707369)") as holder:
        refused = renamed.roll_back(wait=1)
        assert refused["exit_code"] == 3 and f"pid {holder.info.backend_pid}" in refused["msg"]
        assert renamed.contents() == before
        threading.Timer(1, lambda: holder.execute("SELECT pg_advisory_unlock(72707369)")).start()
        assert renamed.roll_back()["changed"]
    assert state(renamed) == UNDISTURBED


def test_prisma_deploying_at_the_same_time_leaves_one_of_two_whole_states(renamed: World) -> None:
    outcomes = []
    deploy = threading.Thread(target=lambda: outcomes.append(deploys(renamed)))
    deploy.start()
    result = renamed.roll_back(prisma=[])
    deploy.join(SECONDS)
    assert not result.get("failed") and outcomes == [True]
    names = [name for (name,) in renamed.execute("SELECT migration_name FROM _prisma_migrations ORDER BY 1")]
    columns = {name for (name,) in renamed.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = 'Contact'"
    )}
    forward = names == ["1_init", "2_full_name"] and columns == {"id", "email", "fullName", "phone"}
    back = names == ["1_init"] and columns == {"id", "email", "name"}
    assert forward or back, (names, columns)


def deploys(world: World) -> bool:
    try:
        world.cli.deploy(world.new, f"{world.url}?schema=public")
    except subprocess.CalledProcessError:
        return False
    return True


# --- kills


def run_killed(world: World, point: int, **arguments: Any) -> int:
    """Run the module in a process of its own that is killed at the given point; 0 where it has none of that number."""
    given = {
        "database_url_file": str(world.secret), "run": world.run, "prisma": [], "wait": 20,
        "_ansible_check_mode": False, **arguments,
    }
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "collections")}
    process = subprocess.run(
        [sys.executable, str(KILLER), str(point), json.dumps(given)],
        env=environment, capture_output=True, timeout=SECONDS, check=False,
    )
    assert process.returncode in (0, -signal.SIGKILL), process.stderr.decode() + process.stdout.decode()
    return process.returncode


@pytest.fixture
def points(every_fault: bool) -> Iterator[int]:
    """The points to kill at: each, or a sample of them."""
    return itertools.count(1, 1 if every_fault else 7)


def test_killed_at_every_point_and_run_again(renamed: World, points: Iterator[int]) -> None:
    """Before and after every statement and every journal entry: the database is as it was, or all done; then resume."""
    template = renamed.url.rsplit("/", 1)[1]
    before = renamed.contents()
    arguments = {"state": "rolled_back", "release": str(renamed.old), "live": str(renamed.new)}
    ends = set()
    for point in points:
        renamed.url = copied(renamed.url, template, f"{template}_{point}")
        renamed.point_at(renamed.url)
        code = run_killed(renamed, point, **arguments)
        eventually(lambda: not in_transaction(renamed.url))
        whole = renamed.contents() == before or state(renamed) == UNDISTURBED
        assert whole, f"point {point}"
        ends.add(renamed.contents() == before)
        assert run_killed(renamed, 0, **arguments) == 0
        assert state(renamed) == UNDISTURBED, f"point {point}"
        if code == 0:
            break
    assert point > 20 and ends == {True, False}


def copied(url: str, template: str, name: str) -> str:
    server = url.rsplit("/", 1)[0]
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    return f"{server}/{name}"


def in_transaction(url: str) -> bool:
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        ).fetchone()
    return bool(found and found[0])


# --- lost connections


class Proxy:
    """Stands between the module and PostgreSQL, and cuts the line at COMMIT, before or after it is passed on."""

    def __init__(self, url: str, cut: str) -> None:
        target = urlsplit(url)
        self._target = (str(target.hostname), int(target.port or 5432))
        self._cut = cut
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = url.replace(f"127.0.0.1:{target.port}", f"127.0.0.1:{port}")
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server, contextlib.suppress(OSError):
            changes = False
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    changes = changes or (ready is client and b"DELETE FROM" in data)
                    commits = changes and ready is client and b"COMMIT" in data and self.cuts == 0
                    if commits and self._cut == "before":
                        self.cuts += 1
                        return
                    (server if ready is client else client).sendall(data)
                    if commits:
                        self.cuts += 1
                        # What it answers is what the module must not see.
                        server.recv(65536)
                        return

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize("cut", ["before", "after"])
def test_the_connection_is_lost_at_commit(renamed: World, cut: str) -> None:
    proxy = Proxy(renamed.url, cut)
    renamed.point_at(proxy.url)
    result = renamed.roll_back(prisma=[])
    proxy.close()
    assert not result.get("failed"), result
    assert proxy.cuts == 1
    assert state(renamed) == UNDISTURBED
    journal = (Path(renamed.run["state_dir"]) / "journal" / f"{renamed.run['id']}.jsonl").read_text()
    commits = [json.loads(line) for line in journal.splitlines() if '"schema.commit"' in line]
    # Journalled before each COMMIT that was sent: one that was undone was made again.
    assert len(commits) == (2 if cut == "before" else 1) and all(each["data"]["transaction"] for each in commits)


def test_the_question_is_asked_when_even_the_server_cannot_tell(
    renamed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy(renamed.url, "after")
    renamed.point_at(proxy.url)
    monkeypatch.setattr(transaction, "_ASK_SECONDS", 1)
    monkeypatch.setattr(transaction, "read_only", unreadable)
    result = renamed.roll_back(prisma=[], wait=2)
    proxy.close()
    assert result["exit_code"] == 30 and "SELECT pg_xact_status('" in result["msg"], result
    monkeypatch.undo()
    renamed.point_at(renamed.url)
    assert not renamed.roll_back().get("failed")
    assert state(renamed) == UNDISTURBED


@contextlib.contextmanager
def unreadable(*_arguments: Any) -> Iterator[Any]:
    raise Unknown("the database cannot be read")
    yield


def test_the_server_ends_the_session_in_the_middle(renamed: World) -> None:
    """As a restart does: what was begun is undone, and made again on a new connection."""
    with holding(renamed.url, 'LOCK TABLE _prisma_migrations IN SHARE MODE') as holder:
        outcomes: list[dict[str, Any]] = []
        rollback = threading.Thread(target=lambda: outcomes.append(renamed.roll_back(prisma=[])))
        rollback.start()
        eventually(lambda: waiting(renamed.url))
        with psycopg.connect(renamed.url, autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'marketsage.rollback'"
            )
        holder.rollback()
        rollback.join(SECONDS)
    assert not outcomes[0].get("failed"), outcomes
    assert state(renamed) == UNDISTURBED


def test_postgresql_is_restarted_in_the_middle(renamed: World) -> None:
    restarts: list[str] = []

    def restart(_cursor: Any, statement: str) -> None:
        if statement.startswith("DELETE FROM") and not restarts:
            restarts.append(statement)
            crash_and_restart(renamed.url)

    with between_statements(restart):
        result = renamed.roll_back(prisma=[])
    assert not result.get("failed"), result
    assert restarts and state(renamed) == UNDISTURBED


def waiting(url: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(
            "SELECT 1 FROM pg_stat_activity WHERE application_name = 'marketsage.rollback' "
            "AND wait_event_type = 'Lock' AND datname = current_database()"
        ).fetchone()


def test_nobody_can_write_while_it_changes(renamed: World) -> None:
    """A probe write of an application is refused by the lock from before the copy until the commit."""
    seen: list[str] = []

    def probe(cursor: Any, statement: str) -> None:
        with psycopg.connect(renamed.url, autocommit=True) as other:
            other.execute("SET lock_timeout = '50ms'")
            try:
                other.execute("""INSERT INTO "Contact" (email) VALUES ('probe')""")
            except psycopg.errors.LockNotAvailable:
                seen.append(statement)

    with between_statements(probe):
        result = renamed.roll_back(prisma=[])
    assert not result.get("failed"), result
    assert seen == result["sql"]
    assert state(renamed) == UNDISTURBED


@contextlib.contextmanager
def between_statements(act: Callable[[Any, str], None]) -> Iterator[None]:
    """Call `act` before each statement of the script."""
    real = schema_rollback.execute

    def execute(cursor: Any, statement: str) -> None:
        act(cursor, statement)
        real(cursor, statement)

    schema_rollback.execute = execute
    try:
        yield
    finally:
        schema_rollback.execute = real


@contextlib.contextmanager
def a_blocker(world: World) -> Iterator[None]:
    with holding(world.url, 'SELECT * FROM "Contact"') as holder:
        threading.Timer(3, holder.rollback).start()
        yield


@contextlib.contextmanager
def a_running_deploy(world: World) -> Iterator[None]:
    with holding(world.url, "SELECT pg_advisory_xact_lock(72707369)") as holder:
        threading.Timer(3, holder.rollback).start()
        yield


@contextlib.contextmanager
def a_restart(world: World) -> Iterator[None]:
    restarts: list[str] = []

    def restart(_cursor: Any, statement: str) -> None:
        if statement.startswith("DELETE FROM") and not restarts:
            restarts.append(statement)
            crash_and_restart(world.url)

    with between_statements(restart):
        yield
    assert restarts


@contextlib.contextmanager
def a_cut_before_commit(world: World, cut: str = "before") -> Iterator[None]:
    proxy = Proxy(world.url, cut)
    world.point_at(proxy.url)
    yield
    proxy.close()
    assert proxy.cuts == 1


def a_cut_after_commit(world: World) -> contextlib.AbstractContextManager[None]:
    return a_cut_before_commit(world, "after")


DISTURBANCES = [a_blocker, a_running_deploy, a_restart, a_cut_before_commit, a_cut_after_commit]


@pytest.mark.parametrize("disturbance", DISTURBANCES)
def test_no_acknowledged_row_is_lost_whatever_gets_in_the_way(
    renamed: World, disturbance: Callable[[World], contextlib.AbstractContextManager[None]]
) -> None:
    with Writer(renamed.url) as writer:
        eventually(lambda: len(writer.acknowledged) > 20)
        with disturbance(renamed):
            result = renamed.roll_back(prisma=[])
        assert not result.get("failed"), result
        seen = len(writer.acknowledged)
        eventually(lambda: len(writer.acknowledged) > seen + 20)
    assert lost(renamed, writer, "name") == []
    assert renamed.execute("SELECT migration_name FROM _prisma_migrations ORDER BY 1") == [("1_init",)]


def test_going_forward_is_killed_while_it_restores(world: World, points: Iterator[int]) -> None:
    world.deployed(NOTES_MODELS, **{"2_notes": NOTES})
    world.execute('INSERT INTO "Note" ("contactId") SELECT id FROM "Contact"')
    name = world.roll_back()["archive"]
    world.cli.deploy(world.new, f"{world.url}?schema=public")
    template = world.url.rsplit("/", 1)[1]
    arguments = {"state": "deployed", "release": str(world.new), "restore_archive": name, "prisma": ["true"]}
    (Path(world.new) / "node_modules").unlink()
    for point in points:
        world.url = copied(world.url, template, f"{template}_{point}")
        world.point_at(world.url)
        code = run_killed(world, point, **arguments)
        eventually(lambda: not in_transaction(world.url))
        assert run_killed(world, 0, **arguments) == 0
        assert world.execute('SELECT count(*), count(DISTINCT id) FROM "Note"') == [(3, 3)], f"point {point}"
        if code == 0:
            break
    assert point > 10


