"""prisma_migrate's rolled_back and deployed on a real PostgreSQL with Prisma's own command line."""
from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.marketsage.rollback.plugins.modules import prisma_migrate
from prisma_releases import Prisma, write_release

Call = Callable[..., dict[str, Any]]
OLD, NEW, FIXED = "a" * 12, "b" * 12, "c" * 12
CONTACT = """model Contact {
  id    Int    @id @default(autoincrement())
  email String @unique
  name  String @default("")
}
"""
INIT = """CREATE TABLE "Contact" (
    "id" SERIAL NOT NULL,
    "email" TEXT NOT NULL,
    "name" TEXT NOT NULL DEFAULT '',
    CONSTRAINT "Contact_pkey" PRIMARY KEY ("id")
);
CREATE UNIQUE INDEX "Contact_email_key" ON "Contact"("email");
"""


class World:
    """Two releases, a database at the newer one, and the module."""

    def __init__(self, tmp_path: Path, url: str, cli: Prisma, call: Call, run: dict[str, Any]) -> None:
        self.directory, self.url, self.cli, self.call, self.run = tmp_path, url, cli, call, run
        self.secret = tmp_path / "database_url"
        self.point_at(url)

    def point_at(self, url: str) -> None:
        self.secret.write_text(f"{url}?schema=public")
        self.secret.chmod(0o600)

    def release(self, name: str, models: str, **migrations: str) -> Path:
        directory = self.directory / "releases" / name
        return self.cli.equip(write_release(directory, models, {"1_init": INIT, **migrations}, self.cli.url_line))

    def deployed(self, models: str, **migrations: str) -> None:
        """The old release, and the new one with more migrations, deployed by Prisma."""
        self.old = self.release(OLD, CONTACT)
        self.new = self.release(NEW, models, **migrations)
        self.cli.deploy(self.old, f"{self.url}?schema=public")
        for number in range(3):
            self.execute('INSERT INTO "Contact" (email, name) VALUES (%s, %s)', f"{number}@x", f"old {number}")
        self.cli.deploy(self.new, f"{self.url}?schema=public")

    def execute(self, sql: str, *values: Any) -> list[Any]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []

    def roll_back(self, **more: Any) -> dict[str, Any]:
        return self.migrate("rolled_back", self.old, live=str(self.new), **more)

    def migrate(self, state: str, release: Path, **more: Any) -> dict[str, Any]:
        given = {"prisma": self.cli.argv, "environment": self.cli.environment, "run": self.run, "wait": 60, **more}
        result = self.call(
            prisma_migrate, state=state, database_url_file=str(self.secret), release=str(release), **given
        )
        shown = json.dumps(result)
        assert "p@ss" not in shown and "p%40ss" not in shown
        return result

    def contents(self) -> str:
        """Everything in the database, as text, to tell whether something changed."""
        tables = self.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
            "WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"
        )
        return "\n".join(f"{name}: {self.execute(f'SELECT t::text FROM {name} AS t ORDER BY 1')}" for (name,) in tables)


@pytest.fixture(params=[6])
def world(
    request: pytest.FixtureRequest, tmp_path: Path, database_url: str, call_module: Call, run: dict[str, Any]
) -> Iterator[World]:
    yield World(tmp_path, database_url, Prisma.of_version(request.param), call_module, run)


FULL_NAME_MODEL = """model Contact {
  id       Int     @id @default(autoincrement())
  email    String  @unique
  fullName String  @default("")
  phone    String?
}
"""
FULL_NAME = """ALTER TABLE "Contact" RENAME COLUMN "name" TO "fullName";
ALTER TABLE "Contact" ADD COLUMN "phone" TEXT;
"""


@pytest.fixture
def renamed(world: World) -> World:
    world.deployed(FULL_NAME_MODEL, **{"2_full_name": FULL_NAME})
    world.execute("""INSERT INTO "Contact" (email, "fullName", phone) VALUES ('new@x', 'New One', '123')""")
    return world


@pytest.mark.parametrize("world", [6, 7], indirect=True)
def test_a_rename_and_a_column_there_and_back(renamed: World) -> None:
    world = renamed
    result = world.roll_back()
    assert not result.get("failed"), result
    assert result["changed"] and result["drift"]["state"] == "none"
    assert result["undone"] == {"2_full_name": "inverse"}
    assert world.execute('SELECT email, name FROM "Contact" ORDER BY id') == [
        ("0@x", "old 0"), ("1@x", "old 1"), ("2@x", "old 2"), ("new@x", "New One"),
    ]
    assert world.execute("SELECT migration_name FROM _prisma_migrations") == [("1_init",)]
    again = world.roll_back()
    assert not again["changed"] and again["archive"] == result["archive"] and again["archived"] == result["archived"]
    world.execute("""DELETE FROM "Contact" WHERE email = '0@x'""")
    world.execute("""INSERT INTO "Contact" (email, name) VALUES ('later@x', 'Later')""")
    forward = world.migrate("deployed", world.new, restore_archive=result["archive"])
    assert not forward.get("failed"), forward
    assert forward["deployed"] == ["2_full_name"] and forward["drift"]["state"] == "none"
    assert forward["restored"] == [
        {"kind": "column", "table": "public.Contact", "column": "phone", "rows": 4, "restored": 1,
         "reason": "1 rows are gone"}
    ]
    assert world.execute('SELECT email, "fullName", phone FROM "Contact" ORDER BY id') == [
        ("1@x", "old 1", None), ("2@x", "old 2", None), ("new@x", "New One", "123"), ("later@x", "Later", None),
    ]
    assert not world.migrate("deployed", world.new, restore_archive=result["archive"])["changed"]
