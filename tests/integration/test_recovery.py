"""postgres_recovery on a real PostgreSQL, with an application that writes numbered rows all along."""
from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils import (
    backups,
    postgres,
    postgres_tools,
    recovery,
    side_database,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import Journal
from ansible_collections.marketsage.rollback.plugins.modules import postgres_backup, postgres_fence, postgres_recovery
from databases import SCHEMA, TOOLS, Boundary, Production, boundaries, crash_and_restart, run_killed, writing

STEPS = ("restored", "verified", "live")


class World:
    """A production database, its backups, and the modules as the procedure calls them."""

    def __init__(self, production: Production, call: Callable[..., dict[str, Any]], run: dict[str, Any], tmp: Path):
        self.production = production
        self.run = run
        self._call = call
        self._files = production.secrets(tmp)
        admin = {"database_url_file": self._files["database_url_file"], "bin_dir": TOOLS, "directory": str(tmp / "b")}
        self.arguments = {**admin, "application_url_file": self._files["application_url_file"], "run": run}
        self.backup = call(postgres_backup, state="taken", run=run, **admin)["backup"]

    def fence(self, state: str) -> dict[str, Any]:
        return self._call(postgres_fence, state=state, run=self.run, **self._files)

    def recover(self, state: str, **more: Any) -> dict[str, Any]:
        return self._call(postgres_recovery, **{**self.arguments, "state": state, **more})

    def steps(self, *states: str, **more: Any) -> dict[str, Any]:
        """Several steps in a row, the last one's result."""
        result: dict[str, Any] = {}
        for state in states:
            result = self.recover(state, **more)
            assert "exit_code" not in result, (state, result)
        return result

    @property
    def anything(self) -> dict[str, str]:
        return {"accept_loss": f"1000000@{self.backup['id']}", "backup": self.backup["id"]}

    def ids(self) -> set[int]:
        query = 'SELECT id FROM "Order" WHERE id > 0'
        return {number for (number,) in self.production.on_server(query, database=self.production.name)}

    def settings(self) -> list[Any]:
        """Everything the server keeps about the live database but its oid."""
        name = self.production.name
        return [
            self.production.on_server(query, name)
            for query in (
                "SELECT datallowconn, datconnlimit, pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate,"
                " shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s",
                "SELECT setrole::regrole::text, setconfig FROM pg_db_role_setting JOIN pg_database d"
                " ON d.oid = setdatabase WHERE datname = %s ORDER BY 1",
                "SELECT grantee::regrole::text, privilege_type FROM pg_database,"
                " aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE datname = %s ORDER BY 1, 2",
            )
        ]

    def databases(self) -> list[str]:
        query = "SELECT datname FROM pg_database WHERE datname LIKE %s ORDER BY 1"
        return [name for (name,) in self.production.on_server(query, f"%{self.production.name}%")]


@pytest.fixture
def world(
    database_url: str, call_module: Callable[..., dict[str, Any]], run: dict[str, Any], tmp_path: Path
) -> Iterator[World]:
    production = Production(database_url)
    production.execute(SCHEMA)
    production.on_server(f'ALTER DATABASE "{production.name}" CONNECTION LIMIT 17')
    production.on_server(f"ALTER DATABASE \"{production.name}\" SET work_mem = '9MB'")
    role = f'ROLE {production.role} IN DATABASE "{production.name}"'
    production.on_server(f"ALTER {role} SET search_path = public, other")
    production.on_server(f'REVOKE TEMPORARY ON DATABASE "{production.name}" FROM PUBLIC')
    production.on_server(f'GRANT CONNECT ON DATABASE "{production.name}" TO pg_monitor WITH GRANT OPTION')
    production.on_server(f"COMMENT ON DATABASE \"{production.name}\" IS 'the shop''s'")
    yield World(production, call_module, run, tmp_path)
    production.drop()


def damage(production: Production) -> None:
    production.execute("UPDATE \"Customer\" SET email = 'job-' || id; DELETE FROM \"no key\"")


def test_what_is_lost_is_exactly_what_was_announced(world: World) -> None:
    before = world.settings()
    with writing(world.production) as writer:
        damage(world.production)
        world.fence("fenced")
        there = world.ids()
        told = world.steps("restored", "verified", **world.anything)["loss"]
        result = world.steps("live", **world.anything)
        assert world.fence("open")["probe"]["wrote"]
        acknowledged = set(writer.stop())
    lost = (acknowledged & there) - world.ids()
    assert told["tables"]['public."Order"']["lost"] == len(there)
    assert len(lost) == len(acknowledged & there)
    assert told["tables"]['public."Customer"'] == {"lost": 0, "changed": 500, "returned": 0}
    assert told["tables"]['public."no key"'] == {"lost": 0, "changed": 0, "returned": 5}
    assert told["rows"] == len(there)
    assert world.settings() == before
    emails = world.production.execute("SELECT count(*) FROM \"Customer\" WHERE email LIKE 'c%@example.com'")
    assert emails == [(500,)]
    (kept,) = result["kept"]
    assert world.production.on_server('SELECT count(*) FROM "Order" WHERE id > 0', database=kept) == [(len(there),)]


def test_run_again_nothing_changes_and_the_old_database_goes_only_when_told(world: World) -> None:
    world.fence("fenced")
    kept = world.steps(*STEPS, **world.anything)["kept"]
    world.fence("open")
    assert [world.recover(state, **world.anything)["changed"] for state in STEPS] == [False, False, False]
    assert world.recover("compared")["restored_before"]
    assert kept == [name for name in world.databases() if "_before_" in name]
    refused = world.recover("absent", name=world.production.name)
    assert (refused["exit_code"], refused["msg"].partition(":")[0]) == (2, "name")
    assert world.recover("absent", name=kept[0], check=True)["changed"]
    assert world.recover("absent", name=kept[0])["changed"]
    assert not world.recover("absent", name=kept[0])["changed"]
    assert world.databases() == [world.production.name]


def test_loss_that_was_not_agreed_to_is_held_until_it_is(world: World) -> None:
    world.production.execute("INSERT INTO \"Order\" VALUES (1, 'acknowledged'), (2, 'acknowledged')")
    world.fence("fenced")
    world.steps("restored", "verified", **world.anything)
    for said in ("", f"1@{world.backup['id']}", "5@another-backup"):
        held = world.recover("live", backup=world.backup["id"], accept_loss=said)
        assert held["exit_code"] == 20
        assert "2 rows that were acknowledged after the backup" in held["msg"]
        assert f"-e accept_loss=2@{world.backup['id']}" in held["advice"]
    assert world.ids() == {1, 2}
    world.steps("live", backup=world.backup["id"], accept_loss=f"2@{world.backup['id']}")
    assert world.ids() == set()


def test_where_nothing_is_lost_no_agreement_is_needed(world: World) -> None:
    damage(world.production)
    world.fence("fenced")
    assert world.steps(*STEPS)["loss"]["rows"] == 0


def test_a_database_that_is_not_fenced_is_not_replaced(world: World) -> None:
    world.steps("restored", "verified")
    refused = world.recover("live")
    assert refused["exit_code"] == 3
    assert "not fenced" in refused["msg"]


def test_the_loss_is_unknown_where_the_old_database_cannot_be_read(world: World) -> None:
    world.fence("fenced")
    world.production.on_server(f'ALTER DATABASE "{world.production.name}" ALLOW_CONNECTIONS false')
    told = world.steps("restored", "verified")
    assert (told["loss"]["known"], told["told"][0][:13]) == (False, "lost: unknown")
    assert world.recover("live", **world.anything)["exit_code"] == 20
    world.steps("live", accept_loss=f"unknown@{world.backup['id']}")


def test_compared_counts_before_anything_is_changed(world: World) -> None:
    world.production.execute("INSERT INTO \"Order\" VALUES (1, 'acknowledged'), (2, 'acknowledged')")
    world.production.execute("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1)")
    before = world.databases()
    compared = world.recover("compared", run=None)
    assert compared["backup"]["id"] == world.backup["id"]
    assert compared["loss"]["rows"] == 3
    assert {name: one["lost"] for name, one in compared["loss"]["tables"].items()} == {
        'public."Order"': 2,
        "public.later": 1,
    }
    assert not compared["restored_before"]
    assert world.databases() == before


PROBE = "import os, sys, psycopg; c = psycopg.connect(os.environ['DATABASE_URL'].split('?')[0]); "
CONTENT = PROBE + "print(c.execute('SELECT count(*) FROM \"Customer\"').fetchone()[0], 'customers')"


def test_the_applications_own_check_is_asked_and_believed(world: World, tmp_path: Path) -> None:
    world.fence("fenced")
    world.steps("restored")
    asked = {"verify_dir": str(tmp_path)}
    complaint = [sys.executable, "-c", "raise SystemExit('7 are invalid')"]
    held = world.recover("verified", verify_command=complaint, **asked)
    assert held["exit_code"] == 20
    assert "7 are invalid" in held["msg"]
    assert world.recover("live")["exit_code"] == 3
    verified = world.steps("verified", verify_command=[sys.executable, "-c", CONTENT], **asked)
    assert verified["verification"] == {"foreign_keys": 2, "verify_command": "500 customers"}
    assert "pass\\word" not in str(verified)


def test_a_backup_that_was_altered_on_disk_leaves_everything_as_it_was(world: World) -> None:
    file = next(Path(world.backup["path"], "dump").glob("*.dat.gz"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    before = (world.settings(), world.databases())
    held = world.recover("restored", backup=world.backup["id"])
    assert held["exit_code"] == 20
    assert "its checksum is another one" in held["msg"]
    assert (world.settings(), world.databases()) == before


def test_withdrawn_the_old_database_is_as_it_was(world: World) -> None:
    before = (world.settings(), world.databases())
    world.fence("fenced")
    world.steps("restored", "verified")
    assert world.recover("withdrawn")["changed"]
    assert not world.recover("withdrawn")["changed"]
    world.fence("open")
    assert (world.settings(), world.databases()) == before


def test_withdrawing_what_is_live_is_refused(world: World) -> None:
    world.fence("fenced")
    world.steps(*STEPS)
    assert world.recover("withdrawn")["exit_code"] == 3


RESTORING = boundaries(
    (side_database, "create"),
    (postgres_tools.Tools, "restore"),
    (recovery, "carry_over"),
    (backups, "verify_contents"),
    (recovery.Memory, "begin"),
    (Journal, "append"),
)
SWAPPING = boundaries(
    (recovery.Memory, "keep"),
    (recovery, "swap"),
    (recovery.database_fence, "apply"),
    (postgres, "end_sessions"),
    (recovery, "rename"),
    (recovery, "unlike"),
    (Journal, "append"),
)
RESTARTED = boundaries((postgres_tools.Tools, "restore"), (backups, "verify_contents"), (recovery, "rename"))


def finish(world: World) -> tuple[Any, ...]:
    """The rest of the procedure, and what is there in the end."""
    world.fence("fenced")
    world.steps(*STEPS, **world.anything)
    world.fence("open")
    return world.settings(), world.ids(), [name.partition("_")[2][13:] for name in world.databases()]


@pytest.mark.parametrize("where", RESTORING, ids=str)
def test_killed_while_restoring_the_same_call_goes_on(world: World, where: Boundary) -> None:
    settings = world.settings()
    world.production.execute("INSERT INTO \"Order\" VALUES (1, 'acknowledged')")
    world.fence("fenced")
    run_killed(postgres_recovery, {**world.arguments, "state": "restored"}, where)
    assert 1 in world.ids()
    stamp = world.run["id"][:16].lower()
    assert finish(world) == (settings, set(), ["", f"before_{stamp}"])


@pytest.mark.parametrize("where", SWAPPING, ids=str)
def test_killed_around_the_swap_the_same_call_goes_on(world: World, where: Boundary) -> None:
    settings = world.settings()
    world.fence("fenced")
    world.steps("restored", "verified")
    run_killed(postgres_recovery, {**world.arguments, "state": "live"}, where)
    stamp = world.run["id"][:16].lower()
    assert finish(world) == (settings, set(), ["", f"before_{stamp}"])


@pytest.mark.parametrize("where", RESTARTED, ids=str)
def test_postgresql_is_restarted_in_the_middle_and_the_same_calls_go_on(
    world: World, where: Boundary, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = world.settings()
    world.production.execute("INSERT INTO \"Order\" VALUES (1, 'acknowledged')")
    world.fence("fenced")
    original, restarts = getattr(where.owner, where.function), []

    def restart(after: bool) -> None:
        if after is where.after and not restarts:
            restarts.append(where)
            crash_and_restart(world.production.admin_url)

    def restarting(*positional: Any, **named: Any) -> Any:
        restart(after=False)
        result = original(*positional, **named)
        restart(after=True)
        return result

    monkeypatch.setattr(where.owner, where.function, restarting)
    for state in STEPS:
        if "exit_code" in world.recover(state, **world.anything):
            break
    assert restarts
    stamp = world.run["id"][:16].lower()
    assert finish(world) == (settings, set(), ["", f"before_{stamp}"])
    kept = next(name for name in world.databases() if "_before_" in name)
    assert world.production.on_server('SELECT id FROM "Order" WHERE id > 0', database=kept) == [(1,)]


def test_killed_between_the_renames_neither_has_happened(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies in the transaction, after the first rename."""
    settings = world.settings()
    world.fence("fenced")
    world.steps("restored", "verified")
    before = world.databases()
    real = postgres.compose

    def first_rename_only(command: str, *names: str, **literals: str) -> Any:
        if "RENAME" in command and names[0].count("_restored_"):
            raise_killed()
        return real(command, *names, **literals)

    monkeypatch.setattr(postgres, "compose", first_rename_only)
    here = Boundary(sys.modules[__name__], "raise_killed", False)
    run_killed(postgres_recovery, {**world.arguments, "state": "live"}, here)
    monkeypatch.undo()
    assert world.databases() == before
    stamp = world.run["id"][:16].lower()
    assert finish(world) == (settings, set(), ["", f"before_{stamp}"])


def raise_killed() -> None:
    raise AssertionError("the process was to die here")
