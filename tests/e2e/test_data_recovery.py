"""Data corruption recovery as an operator runs it, with users about."""
from __future__ import annotations

import json
import re

import psycopg
from ansible_collections.marketsage.rollback.sandbox.load import Load, missing_rows
from conftest import Sandbox

SAID = ("run", "data_recovery", "-s", "P0", "-r", "rows overwritten")
DAMAGED = "SELECT count(*) FROM \"Contact\" WHERE email NOT LIKE '%@%'"


def databases(sandbox: Sandbox) -> list[str]:
    with psycopg.connect(sandbox.layout.admin_database_url) as server:
        return [name for (name,) in server.execute("SELECT datname FROM pg_database WHERE datname ~ '^marketsage'")]


def damaged(sandbox: Sandbox) -> int:
    with psycopg.connect(sandbox.layout.database_url) as database:
        row = database.execute(DAMAGED).fetchone()
    assert row
    return int(row[0])


def test_data_goes_back_to_the_backup_and_loses_exactly_what_was_announced(sandbox: Sandbox) -> None:
    sandbox.break_("data-corruption")
    with Load(sandbox.layout, rate=20, services=["api"]) as load:
        refused = sandbox.rollback(*SAID)
        assert refused.returncode == 3, refused.stdout + refused.stderr
        assert not sandbox.is_locked()
        agreement = re.search(r"NEXT: .*-e (accept_loss=\d+@\S+)", refused.stdout)
        assert agreement, refused.stdout
        rows, backup = agreement[1].partition("=")[2].split("@")

        done = sandbox.rollback(*SAID, "-e", f"accept_loss={int(rows) + 1000}@{backup}", "--json")
        result = load.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    assert result["kinds"]["maintenance"] > 0
    assert damaged(sandbox) == 0
    (kept,) = [name for name in databases(sandbox) if "_before_" in name]
    old = sandbox.layout.admin_database_url.rpartition("/")[0] + f"/{kept}"
    lost = missing_rows(sandbox.layout, load.record.acknowledged)
    with psycopg.connect(old) as database:
        there = database.execute('SELECT count(*) FROM "Contact" WHERE email = ANY(%s)', [lost]).fetchone()
    assert there == (len(lost),)
    (journal,) = (sandbox.layout.control / "runs").glob("*-data_recovery-*/journals/database-admin.jsonl")
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    told = next(entry for entry in entries if (entry["step"], entry["kind"]) == ("database.verified", "outcome"))
    announced = told["data"]["loss"]["tables"]['public."Contact"']["lost"]
    assert announced == rows_only_there(old, backup, sandbox)

    again = sandbox.rollback(*SAID)
    assert (again.returncode, "DONE: nothing to change" in again.stdout) == (0, True), again.stdout


def rows_only_there(old: str, backup: str, sandbox: Sandbox) -> int:
    """Rows of the damaged database that the backup does not have, by id."""
    manifest = json.loads((sandbox.layout.backups / backup / "manifest.json").read_text())
    with psycopg.connect(old) as database:
        row = database.execute('SELECT count(*) FROM "Contact"').fetchone()
    assert row
    return int(row[0]) - int(manifest["tables"]['public."Contact"']["rows"])


def test_a_restore_that_the_application_rejects_is_held_and_can_be_given_up(sandbox: Sandbox) -> None:
    sandbox.break_("data-corruption")
    before = (damaged(sandbox), databases(sandbox))
    status = json.loads(sandbox.rollback("status", "--json").stdout)
    backup = status["backups"]["backups"][0]["id"]
    words = ("-e", "severity=P0", "-e", "reason=rejected", "-e", f"accept_loss=1000@{backup}")
    rejects = ("-e", '{"database_verify_command": ["false"]}')
    held = sandbox.playbook("data_recovery", *words, *rejects)
    assert held.returncode == 20, held.stdout + held.stderr
    assert sandbox.shows_page()
    run = re.search(r"rollback resume (\S+-data_recovery-\w+)", held.stdout)
    assert run, held.stdout
    given_up = sandbox.rollback("resume", run[1], "-e", "give_up=true")
    assert given_up.returncode == 21, given_up.stdout + given_up.stderr
    assert not sandbox.shows_page()
    assert not sandbox.is_locked()
    assert (damaged(sandbox), databases(sandbox)) == before
    assert sandbox.answer(path="/api/v2/health/db").status_code == 200
