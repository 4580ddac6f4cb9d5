"""prisma_migrate's rolled_back and deployed on a real PostgreSQL with Prisma's own command line."""
from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.marketsage.rollback.plugins.modules import prisma_migrate
from prisma_releases import Ledger, Prisma, write_release

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
        """The old release with three rows, and then the new one with more migrations."""
        self.old = self.release(OLD, CONTACT)
        self.new = self.release(NEW, models, **migrations)
        ledger = Ledger(self.url)
        ledger.applied("1_init", INIT)
        for number in range(3):
            self.execute('INSERT INTO "Contact" (email, name) VALUES (%s, %s)', f"{number}@x", f"old {number}")
        for name, sql in migrations.items():
            ledger.applied(name, sql)

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


# --- what is set aside, and comes back


NOTES_MODELS = CONTACT.replace("\n}", "\n  notes Note[]\n}") + """
enum Mood {
  GOOD
  BAD
}
model Note {
  id        Int      @id @default(autoincrement())
  mood      Mood     @default(GOOD)
  contactId Int
  replyTo   Int?
  contact   Contact  @relation(fields: [contactId], references: [id], onDelete: Cascade)
  original  Note?    @relation("replies", fields: [replyTo], references: [id])
  replies   Note[]   @relation("replies")
  @@index([contactId])
}
"""
NOTES = """CREATE TYPE "Mood" AS ENUM ('GOOD', 'BAD');
CREATE TABLE "Note" (
    "id" SERIAL NOT NULL,
    "mood" "Mood" NOT NULL DEFAULT 'GOOD',
    "contactId" INTEGER NOT NULL,
    "replyTo" INTEGER,
    CONSTRAINT "Note_pkey" PRIMARY KEY ("id")
);
CREATE INDEX "Note_contactId_idx" ON "Note"("contactId");
ALTER TABLE "Note" ADD CONSTRAINT "Note_contactId_fkey" FOREIGN KEY ("contactId") REFERENCES "Contact"("id")
    ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "Note" ADD CONSTRAINT "Note_replyTo_fkey" FOREIGN KEY ("replyTo") REFERENCES "Note"("id")
    ON DELETE SET NULL ON UPDATE CASCADE;
"""


def test_a_table_is_moved_aside_and_its_rows_come_back(world: World) -> None:
    world.deployed(NOTES_MODELS, **{"2_notes": NOTES})
    notes = "(1, 'BAD', NULL), (2, 'GOOD', 1), (1, 'GOOD', 2)"
    world.execute(f'INSERT INTO "Note" ("contactId", mood, "replyTo") VALUES {notes}')
    before = world.execute("""SELECT oid, relfilenode FROM pg_class WHERE relname = 'Note'""")
    result = world.roll_back()
    assert not result.get("failed"), result
    assert result["drift"]["state"] == "none" and result["undone"] == {"2_notes": "inverse"}
    assert result["archived"] == [
        {"kind": "table", "table": "public.Note", "column": None, "rows": 3, "counted": True, "relation": "Note"}
    ]
    assert world.execute("""SELECT oid, relfilenode FROM pg_class WHERE relname = 'Note'""") == before
    world.execute('DELETE FROM "Contact" WHERE id = 2')
    forward = world.migrate("deployed", world.new, restore_archive=result["archive"])
    assert not forward.get("failed"), forward
    assert forward["drift"]["state"] == "none"
    assert world.execute('SELECT id, mood::text, "contactId" FROM "Note" ORDER BY id') == [(1, "BAD", 1)]
    (note,) = forward["restored"]
    assert (note["rows"], note["restored"]) == (3, 1) and note["reason"].startswith("2 rows")
    assert world.execute('INSERT INTO "Note" ("contactId") VALUES (1) RETURNING id') == [(2,)]


STATUS_MODEL = CONTACT.replace("\n}", "\n  role Role @default(MEMBER)\n}") + "enum Role {\n  MEMBER\n  ADMIN\n}\n"


OWNER = """ALTER TYPE "Role" ADD VALUE 'OWNER';"""


def test_values_of_an_enum_that_the_old_release_does_not_know(world: World) -> None:
    old_sql = """CREATE TYPE "Role" AS ENUM ('MEMBER', 'ADMIN');
    ALTER TABLE "Contact" ADD COLUMN "role" "Role" NOT NULL DEFAULT 'MEMBER';"""
    world.old = world.release(OLD, STATUS_MODEL, **{"2_role": old_sql})
    model = STATUS_MODEL.replace("  ADMIN\n", "  ADMIN\n  OWNER\n")
    world.new = world.release(NEW, model, **{"2_role": old_sql, "3_owner": OWNER})
    for name, sql in {"1_init": INIT, "2_role": old_sql, "3_owner": OWNER}.items():
        Ledger(world.url).applied(name, sql)
    world.execute("""INSERT INTO "Contact" (email, role) VALUES ('a', 'ADMIN'), ('b', 'OWNER'), ('c', 'OWNER')""")
    shown = world.roll_back(check=True)
    assert shown["at_risk"] == [{"kind": "enum values", "table": "public.Contact", "column": "role", "rows": 2}]
    result = world.roll_back()
    assert not result.get("failed"), result
    assert result["undone"] == {"3_owner": "prisma migrate diff"} and result["drift"]["state"] == "none"
    assert world.execute('SELECT email, role::text FROM "Contact" ORDER BY 1') == [
        ("a", "ADMIN"), ("b", "MEMBER"), ("c", "MEMBER"),
    ]
    world.execute("""UPDATE "Contact" SET role = 'ADMIN' WHERE email = 'c'""")
    forward = world.migrate("deployed", world.new, restore_archive=result["archive"])
    assert not forward.get("failed"), forward
    assert world.execute('SELECT email, role::text FROM "Contact" ORDER BY 1') == [
        ("a", "ADMIN"), ("b", "OWNER"), ("c", "ADMIN"),
    ]
    assert (forward["restored"][0]["restored"], forward["restored"][0]["reason"]) == (1, "1 rows have a newer value")


def test_a_renamed_value_keeps_its_rows_although_another_value_has_no_inverse(world: World) -> None:
    old_sql = """CREATE TYPE "Role" AS ENUM ('MEMBER', 'ADMIN');
    ALTER TABLE "Contact" ADD COLUMN "role" "Role" NOT NULL DEFAULT 'MEMBER';"""
    new_sql = OWNER + """ALTER TYPE "Role" RENAME VALUE 'ADMIN' TO 'boss';"""
    world.old = world.release(OLD, STATUS_MODEL, **{"2_role": old_sql})
    model = STATUS_MODEL.replace("  ADMIN\n", '  BOSS @map("boss") // was ADMIN\n  OWNER\n')
    world.new = world.release(NEW, model, **{"2_role": old_sql, "3_owner": new_sql})
    for name, sql in {"1_init": INIT, "2_role": old_sql}.items():
        Ledger(world.url).applied(name, sql)
    for sql in (OWNER, """ALTER TYPE "Role" RENAME VALUE 'ADMIN' TO 'boss';"""):
        world.execute(sql)
    Ledger(world.url).recorded("3_owner", new_sql, finished=True)
    world.execute("""INSERT INTO "Contact" (email, role) VALUES ('a', 'boss'), ('b', 'OWNER'), ('c', 'MEMBER')""")
    shown = world.roll_back(check=True)
    assert shown["at_risk"] == [{"kind": "enum values", "table": "public.Contact", "column": "role", "rows": 1}]
    result = world.roll_back()
    assert not result.get("failed"), result
    assert result["drift"]["state"] == "none"
    assert world.execute('SELECT email, role::text FROM "Contact" ORDER BY 1') == [
        ("a", "ADMIN"), ("b", "MEMBER"), ("c", "MEMBER"),
    ]


def test_what_has_no_inverse_is_asked_of_prisma_and_a_rename_still_loses_nothing(world: World) -> None:
    model = """model Person {
      id       Int     @id @default(autoincrement())
      address  String  @default("none") @map("mail")
      fullName String? @default("") @db.VarChar(200)
      note     String? @db.VarChar(20) // a comment
    }
    """
    up = """ALTER TABLE "Contact" RENAME TO "Person";
    ALTER TABLE "Person" RENAME CONSTRAINT "Contact_pkey" TO "Person_pkey";
    ALTER TABLE "Person" RENAME COLUMN "name" TO "fullName";
    ALTER TABLE "Person" RENAME COLUMN "email" TO "mail";
    ALTER TABLE "Person" ALTER COLUMN "fullName" TYPE VARCHAR(200), ALTER COLUMN "fullName" DROP NOT NULL,
      ALTER COLUMN "mail" SET DEFAULT 'none', ADD COLUMN "note" VARCHAR(20);
    DROP INDEX "Contact_email_key";
    ALTER TABLE "Person" ADD CONSTRAINT "long" CHECK (length("mail") < 100);
    """
    world.deployed(model, **{"2_person": up})
    world.execute("""INSERT INTO "Person" (mail, "fullName", note) VALUES ('new', 'New', 'remember')""")
    result = world.roll_back()
    assert not result.get("failed"), result
    assert result["undone"] == {"2_person": "prisma migrate diff"} and result["drift"]["state"] == "none"
    people = world.execute('SELECT id, email, name FROM "Contact" ORDER BY id')
    assert people[2:] == [(3, "2@x", "old 2"), (4, "new", "New")]
    assert world.execute("SELECT 1 FROM pg_constraint WHERE conname = 'long'") == []
    forward = world.migrate("deployed", world.new, restore_archive=result["archive"])
    assert world.execute('SELECT note FROM "Person" ORDER BY id') == [(None,), (None,), (None,), ("remember",)]
    assert {each["column"]: each["restored"] for each in forward["restored"]} == {"note": 1, "fullName": 0}


def test_a_default_that_differs_from_row_to_row_does_not_hide_what_was_there(world: World) -> None:
    model = CONTACT.replace("\n}", "\n  created DateTime @default(now())\n}")
    up = 'ALTER TABLE "Contact" ADD COLUMN "created" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP;'
    world.deployed(model, **{"2_created": up})
    world.execute("""UPDATE "Contact" SET created = '2020-01-01' WHERE id = 1""")
    result = world.roll_back()
    world.cli.deploy(world.new, f"{world.url}?schema=public")
    world.execute("""UPDATE "Contact" SET created = '2030-01-01' WHERE id = 2""")
    restored = world.migrate("deployed", world.new, restore_archive=result["archive"])["restored"]
    assert world.execute('SELECT id, extract(year FROM created)::int FROM "Contact" WHERE id < 3 ORDER BY id') == [
        (1, 2020), (2, 2030),
    ]
    assert restored[0]["reason"] == "1 rows have a newer value"


def test_what_its_authors_checked_in_is_used(renamed: World) -> None:
    world = renamed
    down = world.new / "prisma/migrations/2_full_name/down.sql"
    down.write_text("""BEGIN;
    SET lock_timeout = '1h';
    UPDATE "Contact" SET "fullName" = upper("fullName");
    ALTER TABLE "Contact" RENAME COLUMN "fullName" TO name;
    ALTER TABLE "Contact" DROP COLUMN phone; -- Ünïcode
    COMMIT;
    """)
    result = world.roll_back()
    assert not result.get("failed"), result
    assert result["undone"] == {"2_full_name": "down.sql"}
    assert world.execute('SELECT name FROM "Contact" ORDER BY id')[-1] == ("NEW ONE",)
    archived = world.execute(f'SELECT "fullName", phone FROM {result["archive"]}."Contact_columns" ORDER BY id')
    assert archived[-1] == ("New One", "123")
    assert [each["kind"] for each in result["archived"]] == ["changed column", "column"]


# --- what is refused, with nothing changed


@pytest.mark.parametrize(
    ("down", "named"),
    [
        ('CREATE INDEX CONCURRENTLY i ON "Contact"(email)', "cannot run in a transaction"),
        ("VACUUM", "cannot run in a transaction"),
        ("ALTER SYSTEM SET fsync = off", "cannot run in a transaction"),
        ('DELETE FROM "Contact"', "DELETE FROM"),
        ('TRUNCATE "Contact"', "TRUNCATE"),
        ("SELECT pg_sleep(1)", "SELECT pg_sleep(1)"),
        ("DO $$ BEGIN END $$", "DO $$"),
        ('DROP TABLE "Contact" CASCADE', "CASCADE"),
        ("ROLLBACK", "ROLLBACK"),
        ("\\i other.sql", "not SQL"),
        ('ALTER TABLE "Contact" RENAME COLUMN nothing TO name', "nothing was changed"),
    ],
)
def test_a_down_script_that_must_not_run(renamed: World, down: str, named: str) -> None:
    (renamed.new / "prisma/migrations/2_full_name/down.sql").write_text(down)
    before = renamed.contents()
    result = renamed.roll_back()
    assert result["failed"] and result["exit_code"] == 3 and named in result["msg"], result
    assert renamed.contents() == before


@pytest.mark.parametrize(
    ("up", "models", "named"),
    [
        ("""UPDATE "Contact" SET name = upper(name);""", CONTACT, "UPDATE"),
        ("CREATE OR REPLACE VIEW v AS SELECT 1;", CONTACT, "VIEW"),
        ('ALTER TABLE "Contact" DROP COLUMN name;', CONTACT.replace('  name  String @default("")\n', "  "), ""),
    ],
)
def test_what_cannot_be_computed_is_said(world: World, up: str, models: str, named: str) -> None:
    world.deployed(models, **{"2_change": up})
    before = world.contents()
    result = world.roll_back()
    if named:
        assert result["exit_code"] == 3 and named in result["msg"] and "down.sql" in result["advice"]
        assert world.contents() == before
    else:
        assert world.execute("SELECT migration_name FROM _prisma_migrations") == [("1_init",)]


def test_a_column_without_a_key_to_put_it_back_by_is_refused(world: World) -> None:
    up = 'ALTER TABLE "Contact" DROP CONSTRAINT "Contact_pkey"; DROP INDEX "Contact_email_key";'
    world.deployed(CONTACT, **{"2_change": up + 'ALTER TABLE "Contact" ADD COLUMN x INT;'})
    (world.new / "prisma/migrations/2_change/down.sql").write_text('ALTER TABLE "Contact" DROP COLUMN x;')
    result = world.roll_back(prisma=[])
    assert result["exit_code"] == 3 and "primary key" in result["msg"]


def test_a_database_changed_by_hand_is_refused(renamed: World) -> None:
    renamed.execute('ALTER TABLE "Contact" ADD COLUMN by_hand INT')
    before = renamed.contents()
    result = renamed.roll_back()
    assert result["exit_code"] == 3 and "by_hand" in result["msg"]
    assert renamed.contents() == before


def test_check_mode_shows_all_and_changes_nothing(renamed: World) -> None:
    before = renamed.contents()
    shown = renamed.roll_back(check=True, _ansible_diff=True, run=None)
    assert not shown.get("failed"), shown
    assert shown["changed"] and renamed.contents() == before
    assert shown["at_risk"] == [{"kind": "column", "table": "public.Contact", "column": "phone", "rows": 1}]
    assert 'ALTER TABLE "public"."Contact" RENAME COLUMN "fullName" TO "name";' in shown["diff"]["prepared"]
    assert "1 rows of public.Contact.phone" in shown["diff"]["prepared"]
    refused = renamed.roll_back(run=None)
    assert refused["exit_code"] == 3 and refused["msg"].startswith("run:") and renamed.contents() == before


def test_what_is_still_used_is_not_dropped_under_it(world: World) -> None:
    world.deployed(NOTES_MODELS, **{"2_notes": NOTES})
    world.execute('CREATE VIEW moods AS SELECT mood FROM "Note"')
    before = world.contents()
    result = world.roll_back()
    assert result["exit_code"] == 3 and "moods" in result["msg"]
    assert world.contents() == before
