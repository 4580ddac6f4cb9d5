"""prisma_migrate against ledgers and a Prisma CLI that obey, and ones that lie."""
from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.marketsage.rollback.plugins.module_utils import archive, drift, library, prisma
from ansible_collections.marketsage.rollback.plugins.module_utils.ddl import SchemaChange
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, RollbackError, Unknown
from ansible_collections.marketsage.rollback.plugins.modules import prisma_migrate

Call = Callable[..., dict[str, Any]]
INIT = 'CREATE TABLE "Contact" ("id" TEXT NOT NULL PRIMARY KEY, "email" TEXT);\n'
ADD_USER = 'CREATE TABLE "User" ("id" TEXT NOT NULL PRIMARY KEY);\n'
RENAME = 'ALTER TABLE "Contact" RENAME COLUMN "email" TO "mail";\n'
SCHEMA = "prisma/schema.prisma"
URL = "postgresql://app:s3cret@db.example.com:5432/marketsage?schema=public&connection_limit=5"


def effects(*migrations: str) -> list[str]:
    change = SchemaChange("public")
    for number, sql in enumerate(migrations, 1):
        change.apply(f"m{number}", sql)
    return [finding.effect for finding in change.findings()]


# --- statements


@pytest.mark.parametrize(
    "sql",
    [
        ADD_USER,
        "CREATE TABLE IF NOT EXISTS x (id int)",
        "CREATE INDEX i ON \"Contact\" (email)",
        "CREATE TYPE role AS ENUM ('a', 'b')",
        "CREATE SEQUENCE s",
        "CREATE SCHEMA IF NOT EXISTS ops",
        "CREATE EXTENSION IF NOT EXISTS citext",
        "CREATE VIEW v AS SELECT 1",
        "COMMENT ON TABLE \"Contact\" IS 'x'",
        'ALTER TABLE "Contact" ADD COLUMN phone TEXT',
        'ALTER TABLE "Contact" ADD COLUMN score INT NOT NULL DEFAULT 0',
        'ALTER TABLE "Contact" ADD COLUMN n BIGSERIAL',
        'ALTER TABLE "Contact" ADD COLUMN n INT GENERATED ALWAYS AS IDENTITY',
        'ALTER TABLE "Contact" ADD COLUMN n INT CHECK (n > 0)',
        'ALTER TABLE "Contact" ALTER COLUMN email SET DEFAULT \'x\'',
        'ALTER INDEX "Contact_pkey" RENAME TO "Contact_id"',
        'ALTER TABLE "Contact" RENAME CONSTRAINT "Contact_pkey" TO x',
    ],
)
def test_a_release_that_does_not_know_it_lives_on(sql: str) -> None:
    assert set(effects(sql)) == {"additive"}


@pytest.mark.parametrize(
    "sql",
    [
        'DROP TABLE "Contact"',
        'ALTER TABLE "Contact" DROP COLUMN email',
        'ALTER TABLE "Contact" RENAME COLUMN email TO mail',
        'ALTER TABLE "Contact" RENAME TO "Person"',
        'ALTER TABLE "Contact" SET SCHEMA ops',
        'ALTER TABLE "Contact" ADD COLUMN n INT NOT NULL',
        'ALTER TABLE "Contact" ADD COLUMN IF NOT EXISTS n INT NOT NULL',
        'ALTER TABLE "Contact" ADD COLUMN n INT UNIQUE DEFAULT 0',
        'ALTER TABLE "Contact" ALTER COLUMN email SET NOT NULL',
        'ALTER TABLE "Contact" ALTER COLUMN email TYPE INT USING email::int',
        'ALTER TABLE "Contact" ALTER COLUMN email DROP DEFAULT',
        'ALTER TABLE "Contact" ADD CONSTRAINT c CHECK (email <> \'\')',
        'ALTER TABLE "Contact" ADD CONSTRAINT c UNIQUE (email)',
        'ALTER TABLE "Contact" ADD CONSTRAINT f FOREIGN KEY (email) REFERENCES "User"(id)',
        'ALTER TABLE "Contact" DROP CONSTRAINT "Contact_pkey"',
        'CREATE UNIQUE INDEX i ON "Contact" (email)',
        'CREATE UNIQUE INDEX i ON "Contact" (lower(email))',
        'DROP INDEX "Contact_email_key"',
        'DROP TYPE "Role"',
        'ALTER TYPE "Role" RENAME TO "Role_old"',
        "ALTER TYPE \"Role\" RENAME VALUE 'a' TO 'b'",
        "DROP SCHEMA ops CASCADE",
    ],
)
def test_a_release_cannot_live_with_it(sql: str) -> None:
    assert "destructive" in effects(sql)


@pytest.mark.parametrize(
    "sql",
    [
        'UPDATE "Contact" SET email = NULL',
        'INSERT INTO "Contact" VALUES (1)',
        'DELETE FROM "Contact"',
        'TRUNCATE "Contact"',
        "SELECT do_something()",
        "DO $$ BEGIN PERFORM 1; END $$",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DROP FUNCTION f()",
        'CREATE TRIGGER t BEFORE INSERT ON "Contact" EXECUTE FUNCTION f()',
        "CREATE OR REPLACE VIEW v AS SELECT 1",
        'ALTER TABLE "Contact" ENABLE ROW LEVEL SECURITY',
        'ALTER TABLE "Contact" ALTER COLUMN email DROP NOT NULL',
        "ALTER TYPE \"Role\" ADD VALUE 'x'",
        'CREATE TABLE p PARTITION OF "Contact" DEFAULT',
        'REVOKE ALL ON "Contact" FROM app',
        "SET search_path = other",
        "ROLLBACK",
        "this is not SQL",
    ],
)
def test_what_nobody_can_tell_is_unknown(sql: str) -> None:
    assert effects(sql) == ["unknown"]


@pytest.mark.parametrize("sql", ["", "-- This is an empty migration.", "BEGIN; COMMIT;", "SET lock_timeout = '5s'"])
def test_nothing_is_nothing(sql: str) -> None:
    assert effects(sql) == []


@pytest.mark.parametrize(
    "migrations",
    [
        [ADD_USER, 'ALTER TABLE "User" ADD COLUMN n INT NOT NULL; CREATE UNIQUE INDEX u ON "User"(n)'],
        [ADD_USER, 'DROP TABLE "User"'],
        [ADD_USER, 'ALTER TABLE "public"."User" RENAME TO "Account"', 'ALTER TABLE "Account" DROP COLUMN id'],
        ["CREATE TYPE r AS ENUM ('a')", "ALTER TYPE r ADD VALUE 'b'; ALTER TYPE r RENAME TO s; DROP TYPE s"],
        ['ALTER TABLE "Contact" ADD COLUMN n INT', 'ALTER TABLE "Contact" DROP COLUMN n'],
        ['ALTER TABLE "Contact" ADD COLUMN n INT', 'ALTER TABLE "Contact" RENAME COLUMN n TO m'],
        ['ALTER TABLE "Contact" ADD COLUMN n INT DEFAULT 0', 'ALTER TABLE "Contact" ALTER COLUMN n SET NOT NULL'],
        ['CREATE UNIQUE INDEX i ON "Contact" (email)', "DROP INDEX i"],
        ['ALTER TABLE "Contact" ADD CONSTRAINT c UNIQUE (email)', 'ALTER TABLE "Contact" DROP CONSTRAINT c'],
    ],
)
def test_what_the_same_migrations_created_they_may_change(migrations: list[str]) -> None:
    assert set(effects(*migrations)) <= {"additive"}


def test_a_relation_to_a_new_table_by_a_new_optional_column_is_additive() -> None:
    link = 'ALTER TABLE "Contact" ADD CONSTRAINT f FOREIGN KEY ("ownerId") REFERENCES "User"("id") ON DELETE SET NULL'
    assert set(effects(ADD_USER, 'ALTER TABLE "Contact" ADD COLUMN "ownerId" TEXT', link)) == {"additive"}


def test_a_unique_column_with_a_default_is_not() -> None:
    unique = 'CREATE UNIQUE INDEX u ON "Contact" (n)'
    assert "destructive" in effects('ALTER TABLE "Contact" ADD COLUMN n INT NOT NULL DEFAULT 0', unique)
    assert "destructive" not in effects('ALTER TABLE "Contact" ADD COLUMN n INT', unique)
    assert "destructive" in effects('ALTER TABLE "Contact" ADD COLUMN n INT', f"{unique} NULLS NOT DISTINCT")


def test_a_default_that_is_taken_away_again_does_not_help() -> None:
    added = 'ALTER TABLE "Contact" ADD COLUMN n INT NOT NULL DEFAULT 0'
    assert effects(added, 'ALTER TABLE "Contact" ALTER COLUMN n DROP DEFAULT') == ["destructive"]


def test_a_table_of_the_same_name_in_another_schema_is_another_table() -> None:
    assert "destructive" in effects('CREATE TABLE ops."Contact" (id int)', 'DROP TABLE "Contact"')


def test_the_removal_of_an_enum_value_is_destructive_as_prisma_writes_it() -> None:
    sql = """BEGIN;
    CREATE TYPE "Role_new" AS ENUM ('USER');
    ALTER TABLE "User" ALTER COLUMN "role" TYPE "Role_new" USING ("role"::text::"Role_new");
    ALTER TYPE "Role" RENAME TO "Role_old";
    ALTER TYPE "Role_new" RENAME TO "Role";
    DROP TYPE "Role_old";
    COMMIT;"""
    assert "destructive" in effects(sql)


# --- ledger and releases


def row(name: str, sql: str = "", *, finished: bool = True, rolled_back: bool = False, minute: int = 0) -> prisma.Row:
    time = datetime(2026, 11, 24, 3, minute, tzinfo=UTC)
    checksum = hashlib.sha256(sql.encode()).hexdigest()
    return prisma.Row(name, checksum, time, time if finished else None, time if rolled_back else None)


def ledger_of(*rows: prisma.Row) -> dict[str, list[prisma.Row]]:
    ledger: dict[str, list[prisma.Row]] = {}
    for entry in rows:
        ledger.setdefault(entry.name, []).append(entry)
    return ledger


@pytest.fixture
def release(tmp_path: Path) -> Callable[..., prisma.Release]:
    def make(release_id: str, **migrations: str) -> prisma.Release:
        directory = tmp_path / "releases" / release_id
        for name, sql in {"m1_init": INIT, **migrations}.items():
            (directory / "prisma" / "migrations" / name).mkdir(parents=True)
            (directory / "prisma" / "migrations" / name / "migration.sql").write_bytes(sql.encode())
        (directory / "prisma" / "schema.prisma").write_text('datasource db {\n  url = env("APP_DATABASE_URL")\n}\n')
        (directory / "prisma" / "migrations" / "migration_lock.toml").touch()
        (directory / "release.json").write_text(json.dumps({"release": release_id}))
        return prisma.Release(str(directory))

    return make


Make = Callable[..., prisma.Release]


def test_equal(release: Make) -> None:
    target = release("a" * 12)
    assert prisma.judge(ledger_of(row("m1_init", INIT)), target, [], "public") == prisma.Verdict("equal", [], [], [])


def test_ahead_by_what_the_target_can_live_with(release: Make) -> None:
    old, new = release("a" * 12), release("b" * 12, m2_user=ADD_USER)
    ledger = ledger_of(row("m1_init", INIT), row("m2_user", ADD_USER, minute=1))
    assert prisma.judge(ledger, old, [new], "public") == prisma.Verdict(
        "additive", ["m2_user: creates table User"], ["m2_user"], []
    )
    assert prisma.judge(ledger, new, [new], "public").verdict == "equal"


def test_one_change_the_target_cannot_live_with_settles_it(release: Make) -> None:
    old, new = release("a" * 12), release("b" * 12, m2_user=ADD_USER + "DO $$ BEGIN END $$;", m3_rename=RENAME)
    user = row("m2_user", ADD_USER + "DO $$ BEGIN END $$;", minute=1)
    ledger = ledger_of(row("m1_init", INIT), user, row("m3_rename", RENAME, minute=2))
    verdict = prisma.judge(ledger, old, [new], "public")
    assert verdict.verdict == "destructive"
    assert verdict.reasons == ["m2_user: runs a block of code", "m3_rename: renames column Contact.email"]


def test_behind(release: Make) -> None:
    target = release("a" * 12, m2_user=ADD_USER)
    verdict = prisma.judge(ledger_of(row("m1_init", INIT)), target, [target], "public")
    assert (verdict.verdict, verdict.missing) == ("behind", ["m2_user"])
    taken_back = ledger_of(row("m1_init", INIT), row("m2_user", ADD_USER, rolled_back=True, minute=1))
    assert prisma.judge(taken_back, target, [target], "public").verdict == "behind"


def test_no_ledger_is_unknown(release: Make) -> None:
    verdict = prisma.judge(None, release("a" * 12), [], "crm")
    assert verdict.verdict == "unknown" and "_prisma_migrations in schema crm" in verdict.reasons[0]


def test_a_failed_migration_is_unknown_whichever_release_asks(release: Make) -> None:
    ledger = ledger_of(row("m1_init", INIT), row("m2_user", ADD_USER, finished=False, minute=1))
    verdict = prisma.judge(ledger, release("a" * 12), [], "public")
    assert verdict.verdict == "unknown" and verdict.reasons == ["m2_user: failed halfway and was not resolved"]


def test_an_edited_migration_is_unknown(release: Make) -> None:
    verdict = prisma.judge(ledger_of(row("m1_init", "CREATE TABLE other ()")), release("a" * 12), [], "public")
    assert verdict.verdict == "unknown" and "m1_init" in verdict.reasons[0]


def test_sql_that_is_not_at_hand_is_unknown(release: Make) -> None:
    ledger = ledger_of(row("m1_init", INIT), row("m2_user", ADD_USER, minute=1))
    assert prisma.judge(ledger, release("a" * 12), [], "public").verdict == "unknown"


def test_sql_of_the_same_name_that_is_not_what_was_applied_is_not_believed(release: Make) -> None:
    old, liar, honest = release("a" * 12), release("b" * 12, m2_user=ADD_USER), release("c" * 12, m2_user=RENAME)
    ledger = ledger_of(row("m1_init", INIT), row("m2_user", RENAME, minute=1))
    assert prisma.judge(ledger, old, [liar], "public").verdict == "unknown"
    assert prisma.judge(ledger, old, [liar, honest], "public").verdict == "destructive"


def test_a_retried_migration_counts_as_applied(release: Make) -> None:
    ledger = ledger_of(row("m1_init", INIT, finished=False, rolled_back=True), row("m1_init", INIT, minute=1))
    assert prisma.judge(ledger, release("a" * 12), [], "public").verdict == "equal"


@pytest.mark.parametrize("text", ["a;\nb;\n", "a;\r\nb;\r\n"])
def test_line_ends_do_not_make_a_migration_edited(text: str) -> None:
    applied = hashlib.sha256(b"a;\nb;\n").hexdigest()
    assert prisma.has_checksum(text.encode(), applied)
    assert prisma.has_checksum(text.encode(), hashlib.sha256(b"a;\r\nb;\r\n").hexdigest())
    assert not prisma.has_checksum(text.encode() + b" ", applied)


# --- the URL


def test_only_what_libpq_knows_is_passed_on() -> None:
    parameters = "schema=sales&connection_limit=5&pgbouncer=true&sslmode=require&sslcert=/ca.pem"
    where = prisma.database(f"postgresql://app:p%40ss@h:5433/crm?{parameters}")
    assert where == ("postgresql://app:p%40ss@h:5433/crm?sslmode=require&sslrootcert=%2Fca.pem", "sales")
    assert prisma.database("postgres://h/crm").schema == "public"


@pytest.mark.parametrize(
    "url",
    ["mysql://app:s3cret@h/crm", "s3cret", "postgresql://app:s3cret@h:x/crm", "postgresql://app:s3cret@h",
     "postgresql://app:s3cret@h/crm?what=1", "postgresql://app:s3cret%zz@h/crm"],
)
def test_a_url_that_cannot_be_used_is_named_but_never_shown(url: str) -> None:
    with pytest.raises(BadInput) as failure:
        prisma.database(url)
    assert str(failure.value).startswith("database_url_file:") and "s3cret" not in str(failure.value)


# --- drift


class Prisma:
    """A command line that says what it was given and exits as it is told."""

    def __init__(self, release: prisma.Release, version: str, code: str) -> None:
        directory = Path(release.path)
        package = directory / "node_modules" / "prisma"
        package.mkdir(parents=True)
        (package / "package.json").write_text(json.dumps({"version": version}))
        (directory / "cli.py").write_text(
            "import json, os, sys\n"
            "json.dump({'argv': sys.argv[1:], 'env': dict(os.environ), 'cwd': os.getcwd()}, open('asked.json', 'w'))\n"
            f"{code}\n"
        )
        self.argv = [sys.executable, "cli.py"]
        self._asked = directory / "asked.json"

    def asked(self) -> Any:
        return json.loads(self._asked.read_text())


LEDGER = ledger_of(row("m1_init", INIT))


def checked(release: prisma.Release, cli: Prisma, seconds: float = 20) -> dict[str, str]:
    return drift.check(release, LEDGER, drift.Cli(cli.argv, {"EXTRA": "1"}, URL, seconds))


@pytest.mark.parametrize(("code", "state"), [(0, "none"), (2, "found"), (1, "unknown"), (3, "unknown")])
def test_the_exit_code_alone_decides(release: Make, code: int, state: str) -> None:
    live = release("a" * 12)
    cli = Prisma(live, "6.19.3", f"print('No difference detected.'); sys.exit({code})")
    assert checked(live, cli)["state"] == state


@pytest.mark.parametrize(
    ("version", "flags"),
    [
        ("5.22.0", ["--from-schema-datasource", SCHEMA, "--to-schema-datamodel", SCHEMA]),
        ("6.19.3", ["--from-schema-datasource", SCHEMA, "--to-schema-datamodel", SCHEMA]),
        ("7.10.1", ["--from-config-datasource", "--to-schema", SCHEMA]),
    ],
)
def test_each_major_version_has_its_flags_and_none_has_the_url(release: Make, version: str, flags: list[str]) -> None:
    live = release("a" * 12)
    cli = Prisma(live, version, "sys.exit(0)")
    checked(live, cli)
    asked = cli.asked()
    assert asked["argv"] == ["migrate", "diff", *flags, "--exit-code"]
    assert "s3cret" not in json.dumps(asked["argv"])
    assert asked["env"]["DATABASE_URL"] == asked["env"]["APP_DATABASE_URL"] == URL
    assert asked["env"]["EXTRA"] == "1" and asked["cwd"] == live.path


def test_the_operators_environment_is_not_handed_on(release: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    live = release("a" * 12)
    cli = Prisma(live, "6.19.3", "sys.exit(0)")
    checked(live, cli)
    assert "AWS_SECRET_ACCESS_KEY" not in cli.asked()["env"]


def test_a_cli_that_does_not_end_is_ended(release: Make) -> None:
    live = release("a" * 12)
    cli = Prisma(live, "6.19.3", "import subprocess; subprocess.run(['sleep', '600'])")
    assert checked(live, cli, seconds=0.5) == {"state": "unknown", "detail": "no answer within 0.5 s"}


def test_a_password_in_its_output_is_not_shown(release: Make) -> None:
    live = release("a" * 12)
    cli = Prisma(live, "6.19.3", "print('cannot reach', os.environ['DATABASE_URL']); sys.exit(1)")
    assert "s3cret" not in checked(live, cli)["detail"]


def test_what_cannot_be_asked_is_not_checked(release: Make) -> None:
    live = release("a" * 12)
    nobody = drift.Cli(["nothing-here"], {}, URL, 5)
    assert drift.check(None, LEDGER, nobody)["state"] == "not checked"
    assert drift.check(live, LEDGER, nobody)["state"] == "not checked"
    Prisma(live, "4.0.0", "")
    assert drift.check(live, LEDGER, nobody)["state"] == "not checked"
    assert drift.check(live, {}, nobody)["detail"] == "the database is not at the release's own migrations"


def test_a_cli_that_cannot_be_started_is_unknown(release: Make) -> None:
    live = release("a" * 12)
    Prisma(live, "6.19.3", "")
    assert drift.check(live, LEDGER, drift.Cli(["nothing-here"], {}, URL, 5))["state"] == "unknown"


# --- the module


class Cursor:
    """A database that has exactly this ledger, and no archive."""

    def __init__(self, rows: list[prisma.Row] | None) -> None:
        self._rows = rows
        self._asked: tuple[Any, ...] = ()

    def execute(self, _statement: Any, values: tuple[Any, ...] = ()) -> None:
        self._asked = values

    def fetchone(self) -> tuple[str | None]:
        return (None if self._rows is None else "_prisma_migrations",)

    def fetchall(self) -> list[prisma.Row]:
        return [] if archive.MANIFEST in self._asked else self._rows or []


@pytest.fixture
def migrate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call_module: Call) -> Call:
    secret = tmp_path / "database_url"
    secret.write_text(URL)
    secret.chmod(0o600)

    def ask(state: str, rows: list[prisma.Row] | None, **arguments: Any) -> dict[str, Any]:
        @contextmanager
        def read_only(*_arguments: Any) -> Iterator[Cursor]:
            yield Cursor(rows)

        monkeypatch.setattr(prisma, "read_only", read_only)
        given = {"database_url_file": str(secret), **arguments}
        result = call_module(prisma_migrate, state=state, **given)
        assert "s3cret" not in json.dumps(result)
        return result

    return ask


def test_status_tells_what_became_of_each_migration(migrate: Call, release: Make) -> None:
    target = release("a" * 12, m2_edited=ADD_USER, m3_failed=ADD_USER, m4_rolled_back=ADD_USER, m5_pending=ADD_USER)
    rows = [
        row("m1_init", INIT), row("m2_edited", "other"), row("m3_failed", finished=False),
        row("m4_rolled_back", rolled_back=True), row("m9_other", ADD_USER),
    ]
    result = migrate("status", rows, release=target.path)
    assert {each["name"]: each["state"] for each in result["migrations"]} == {
        "m1_init": "applied", "m2_edited": "edited", "m3_failed": "failed", "m4_rolled_back": "rolled_back",
        "m5_pending": "pending", "m9_other": "unknown_to_release",
    }
    assert result["ledger"] and not result["changed"]
    assert result["migrations"][0]["finished_at"] == "2026-11-24T03:00:00+00:00"


def test_status_of_a_database_without_a_ledger_says_so(migrate: Call, release: Make) -> None:
    result = migrate("status", None, release=release("a" * 12).path)
    assert result["ledger"] is False and result["migrations"][0]["state"] == "pending"


def is_returned(when: str, state: str) -> bool:
    return when == "success" or f"O(state={state})" in when or (" is not V(" in when and f"V({state})" not in when)


def test_what_is_returned_is_what_is_documented(migrate: Call, release: Make) -> None:
    documented = yaml.safe_load(prisma_migrate.RETURN)
    target = release("a" * 12)
    known = migrate("status", [row("m1_init", INIT)], release=target.path)
    judged = migrate("compatible", [row("m1_init", INIT)], release=target.path)
    for state, result in (("status", known), ("compatible", judged)):
        returned = {name for name, each in documented.items() if is_returned(each["returned"], state)}
        assert returned == result.keys() - {"changed", "invocation"}
    assert documented["verdicts"]["contains"].keys() == judged["verdicts"]["a" * 12].keys()
    assert documented["migrations"]["contains"].keys() == known["migrations"][0].keys()


def test_every_release_at_hand_gets_a_verdict(migrate: Call, release: Make, tmp_path: Path) -> None:
    release("a" * 12), release("b" * 12, m2_rename=RENAME), release("c" * 12, m3_user=ADD_USER)
    (tmp_path / "releases" / "half-built").mkdir()
    rows = [row("m1_init", INIT), row("m2_rename", RENAME, minute=1)]
    result = migrate("compatible", rows, releases_dir=str(tmp_path / "releases"))
    verdicts = {release_id: each["verdict"] for release_id, each in result["verdicts"].items()}
    assert verdicts == {"a" * 12: "destructive", "b" * 12: "equal", "c" * 12: "behind"}
    assert result["drift"]["state"] == "not checked"


def test_one_release_is_judged_with_the_others_as_sources(migrate: Call, release: Make, tmp_path: Path) -> None:
    old, new = release("a" * 12), release("b" * 12, m2_user=ADD_USER)
    rows = [row("m1_init", INIT), row("m2_user", ADD_USER, minute=1)]
    for sources in ({"releases_dir": str(tmp_path / "releases")}, {"live": new.path}):
        result = migrate("compatible", rows, release=old.path, **sources)
        reasons = ["m2_user: creates table User"]
        wanted = {"verdict": "additive", "reasons": reasons, "ahead": ["m2_user"], "missing": []}
        assert result["verdicts"] == {"a" * 12: wanted}


def test_a_database_changed_by_hand_is_not_called_additive(migrate: Call, release: Make) -> None:
    old, new = release("a" * 12), release("b" * 12, m2_user=ADD_USER)
    rows = [row("m1_init", INIT), row("m2_user", ADD_USER, minute=1)]
    cli = Prisma(new, "6.19.3", "print('[-] Removed tables'); sys.exit(2)")
    result = migrate("compatible", rows, release=old.path, live=new.path, prisma=cli.argv)
    verdict = result["verdicts"]["a" * 12]
    assert verdict["verdict"] == "unknown" and "drift" in verdict["reasons"][0]
    assert result["drift"] == {"state": "found", "detail": "[-] Removed tables"}


def test_an_equal_ledger_needs_neither_parser_nor_cli(
    migrate: Call, release: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = release("a" * 12)
    cli = Prisma(live, "6.19.3", "sys.exit(0)")
    monkeypatch.setitem(sys.modules, "pglast", None)
    result = migrate("compatible", [row("m1_init", INIT)], release=live.path, live=live.path, prisma=cli.argv)
    assert result["verdicts"]["a" * 12]["verdict"] == "equal" and not (Path(live.path) / "asked.json").exists()


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pglast", None)
    with pytest.raises(RollbackError, match="pglast"):
        library.library("pglast", "reading migrations")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"release": "/nowhere"}, "release"),
        ({"release": "relative/path"}, "release"),
        ({"releases_dir": "/nowhere"}, "releases_dir"),
        ({"release": "{target}", "live": "/nowhere"}, "live"),
        ({"release": "{target}", "database_url_file": "/nowhere"}, "database_url_file"),
    ],
)
def test_bad_input_is_one_line_that_names_the_parameter(
    migrate: Call, release: Make, arguments: dict[str, str], named: str
) -> None:
    target = release("a" * 12)
    result = migrate("compatible", [], **{key: value.format(target=target.path) for key, value in arguments.items()})
    assert result["failed"] and result["exit_code"] == 2
    assert result["msg"].startswith(f"{named}:") and "\n" not in result["msg"]


def test_a_torn_release_json_is_bad_input(migrate: Call, release: Make) -> None:
    target = release("a" * 12)
    Path(target.path, "release.json").write_text("{torn")
    assert migrate("compatible", [], release=target.path)["exit_code"] == 2


def test_a_database_that_is_not_there_is_unknown() -> None:
    nowhere = prisma.Database("postgresql://127.0.0.1:1/x", "public")
    with pytest.raises(Unknown, match="cannot be read"), prisma.read_only(nowhere, 2):
        pytest.fail("there is no such database")
