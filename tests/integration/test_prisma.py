"""prisma_migrate on a real PostgreSQL, with ledgers as Prisma writes them and with Prisma 6 and 7 themselves."""
from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils import prisma
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Unknown
from ansible_collections.marketsage.rollback.plugins.modules import prisma_migrate
from prisma_releases import URL_LINE, Ledger, Prisma, write_release

Call = Callable[..., dict[str, Any]]
INIT = 'CREATE TABLE "Contact" (\n    "id" SERIAL PRIMARY KEY,\n    "email" TEXT NOT NULL\n);\n'
ADD_USER = 'CREATE TABLE "User" (\n    "id" SERIAL PRIMARY KEY\n);\n'
RENAME = 'ALTER TABLE "Contact" RENAME COLUMN "email" TO "mail";\n'
CONTACT = "model Contact {\n  id Int @id @default(autoincrement())\n  email String\n}\n"
USER = "model User {\n  id Int @id @default(autoincrement())\n}\n"
OLD, NEW = "a" * 12, "b" * 12


@pytest.fixture
def release(tmp_path: Path) -> Callable[..., Path]:
    def make(release_id: str, models: str = CONTACT, url: str = URL_LINE, **migrations: str) -> Path:
        return write_release(tmp_path / "releases" / release_id, models, {"20231101_init": INIT, **migrations}, url)

    return make


Make = Callable[..., Path]


@pytest.fixture
def migrate(tmp_path: Path, call_module: Call) -> Call:
    def ask(state: str, url: str, **arguments: Any) -> dict[str, Any]:
        secret = tmp_path / "database_url"
        secret.write_text(url)
        secret.chmod(0o600)
        result = call_module(prisma_migrate, state=state, database_url_file=str(secret), **arguments)
        shown = json.dumps(result)
        assert "p@ss" not in shown and "p%40ss" not in shown
        return result

    return ask


def verdict(result: dict[str, Any], release_id: str) -> str:
    assert "verdicts" in result, result
    return result["verdicts"][release_id]["verdict"]


# --- the ledger


def test_each_release_gets_the_verdict_that_the_ledger_and_the_sql_give(
    migrate: Call, release: Make, database_url: str, tmp_path: Path
) -> None:
    release(OLD), release(NEW, **{"20231201_user": ADD_USER})
    releases = str(tmp_path / "releases")
    database = Ledger(database_url)
    database.applied("20231101_init", INIT)
    at_old = migrate("compatible", database_url, releases_dir=releases)
    assert (verdict(at_old, OLD), verdict(at_old, NEW)) == ("equal", "behind")
    database.applied("20231201_user", ADD_USER)
    at_new = migrate("compatible", database_url, releases_dir=releases)
    assert (verdict(at_new, OLD), verdict(at_new, NEW)) == ("additive", "equal")
    assert at_new["verdicts"][OLD]["reasons"] == ["20231201_user: creates table User"]


def test_a_rename_is_destructive(migrate: Call, release: Make, database_url: str) -> None:
    old, new = release(OLD), release(NEW, **{"20231202_rename": RENAME})
    database = Ledger(database_url)
    database.applied("20231101_init", INIT)
    database.applied("20231202_rename", RENAME)
    result = migrate("compatible", database_url, release=str(old), live=str(new))
    assert result["verdicts"][OLD] == {
        "verdict": "destructive", "ahead": ["20231202_rename"], "missing": [],
        "reasons": ["20231202_rename: renames column Contact.email"],
    }


def test_a_failed_migration_stops_everybody(migrate: Call, release: Make, database_url: str) -> None:
    old = release(OLD)
    database = Ledger(database_url)
    database.applied("20231101_init", INIT)
    database.recorded("20231201_user", ADD_USER, finished=False)
    result = migrate("compatible", database_url, release=str(old))
    assert verdict(result, OLD) == "unknown" and "20231201_user" in result["verdicts"][OLD]["reasons"][0]


def test_an_edited_migration_is_found_where_prisma_says_up_to_date(
    migrate: Call, release: Make, database_url: str
) -> None:
    old = release(OLD)
    Ledger(database_url).applied("20231101_init", INIT + "-- as it was applied\n")
    assert verdict(migrate("compatible", database_url, release=str(old)), OLD) == "unknown"
    assert migrate("status", database_url, release=str(old))["migrations"][0]["state"] == "edited"


def test_the_schema_of_the_url_is_the_one_that_is_read(migrate: Call, release: Make, database_url: str) -> None:
    old = release(OLD)
    database = Ledger(database_url, schema="Sales")
    database.recorded("20231101_init", INIT, finished=True)
    result = migrate("compatible", f"{database_url}?schema=Sales&connection_limit=5", release=str(old))
    assert verdict(result, OLD) == "equal" and result["schema"] == "Sales"
    assert migrate("compatible", f"{database_url}?schema=public", release=str(old))["ledger"] is False


def test_a_database_that_prisma_never_saw_is_unknown(migrate: Call, release: Make, database_url: str) -> None:
    result = migrate("compatible", database_url, release=str(release(OLD)))
    assert verdict(result, OLD) == "unknown" and result["ledger"] is False


def test_a_wrong_password_is_unknown_and_not_shown(migrate: Call, release: Make, database_url: str) -> None:
    result = migrate("compatible", database_url.replace("p%40ss", "wrong-p%40ss"), release=str(release(OLD)))
    assert result["failed"] and result["exit_code"] == 30


def test_a_ledger_that_is_locked_is_not_waited_for_for_ever(
    migrate: Call, release: Make, database_url: str
) -> None:
    Ledger(database_url)
    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE _prisma_migrations IN ACCESS EXCLUSIVE MODE")
        result = migrate("compatible", database_url, release=str(release(OLD)), timeout=0.5)
    assert result["exit_code"] == 30 and "timeout" in result["msg"]


# --- nothing is written


def test_postgresql_refuses_to_write_for_it(database_url: str) -> None:
    reading = prisma.read_only(prisma.database(database_url), 5)
    with pytest.raises(Unknown, match="read-only transaction"), reading as cursor:
        cursor.execute("CREATE TABLE x ()")


def test_it_takes_no_transaction_number(migrate: Call, release: Make, database_url: str) -> None:
    old, database = release(OLD), Ledger(database_url)
    database.applied("20231101_init", INIT)
    next_number = "SELECT pg_snapshot_xmax(pg_current_snapshot())"
    before = database.execute(next_number).fetchone()
    migrate("compatible", database_url, release=str(old))
    migrate("status", database_url, release=str(old))
    assert database.execute(next_number).fetchone() == before
    database.execute("CREATE TABLE proof ()")
    assert database.execute(next_number).fetchone() != before


def test_a_server_that_stands_still_is_not_waited_for_for_ever(database_url: str) -> None:
    backend = 0
    try:
        reading = prisma.read_only(prisma.database(database_url), 0.5)
        with pytest.raises(Unknown, match="cannot be read"), reading as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            backend = cursor.fetchone()[0]
            os.kill(backend, signal.SIGSTOP)
            cursor.execute("SELECT 1")
    finally:
        os.kill(backend, signal.SIGCONT)


# --- with Prisma itself


@pytest.fixture(params=[6, 7])
def cli(request: pytest.FixtureRequest) -> Prisma:
    return Prisma.of_version(request.param)


@pytest.fixture
def deployed(cli: Prisma, release: Make, database_url: str) -> tuple[Path, Path]:
    """An old and a new release, the new one deployed by Prisma itself."""
    old = release(OLD, url=cli.url_line)
    new = release(NEW, CONTACT + USER, url=cli.url_line, **{"20231201_user": ADD_USER})
    for directory in (old, new):
        cli.equip(directory)
    cli.deploy(new, database_url + "?schema=public")
    return old, new


@pytest.fixture
def judge(migrate: Call, cli: Prisma, deployed: tuple[Path, Path], database_url: str) -> Callable[[], dict[str, Any]]:
    old, new = deployed

    def ask() -> dict[str, Any]:
        given = {"release": str(old), "live": str(new), "prisma": cli.argv, "environment": cli.environment}
        return migrate("compatible", f"{database_url}?schema=public", **given)

    return ask


def test_what_prisma_applied_is_read_as_applied(
    migrate: Call, deployed: tuple[Path, Path], database_url: str
) -> None:
    known = migrate("status", database_url, release=str(deployed[0]))["migrations"]
    assert {each["name"]: each["state"] for each in known} == {
        "20231101_init": "applied", "20231201_user": "unknown_to_release",
    }


def test_no_drift_and_then_a_table_dropped_by_hand(judge: Callable[[], dict[str, Any]], database_url: str) -> None:
    result = judge()
    assert (result["drift"]["state"], verdict(result, OLD)) == ("none", "additive"), result["drift"]
    with psycopg.connect(database_url) as connection:
        connection.execute('DROP TABLE "User"')
    result = judge()
    assert (result["drift"]["state"], verdict(result, OLD)) == ("found", "unknown")
    assert "User" in result["drift"]["detail"]


def test_a_schema_that_prisma_cannot_read_is_unknown_not_equal(
    judge: Callable[[], dict[str, Any]], deployed: tuple[Path, Path]
) -> None:
    (deployed[1] / "prisma" / "schema.prisma").write_text("model Broken {")
    result = judge()
    assert result["drift"]["state"] == "unknown" and result["drift"]["detail"]
