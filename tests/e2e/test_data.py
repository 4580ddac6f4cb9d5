"""Data goes back to a backup, and what a schema rollback set aside comes back, as an operator asks for it."""
from __future__ import annotations

import json
import re
from typing import Any

import httpx
from ansible_collections.marketsage.rollback.sandbox.deploy import deploy
from ansible_collections.marketsage.rollback.sandbox.layout import HOSTS
from ansible_collections.marketsage.rollback.sandbox.load import Load, missing_rows
from conftest import Sandbox

SAID = ("-s", "P0", "-r", "rows overwritten")
ROWS = 'SELECT count(*) FROM "Contact"'
DAMAGED = f"{ROWS} WHERE email NOT LIKE '%%@%%'"
PHONES = {f"phone-{number}@data.invalid": f"+49 30 {number}" for number in range(20)}


def damaged(sandbox: Sandbox) -> int:
    return int(sandbox.ask(sandbox.layout.database_url, DAMAGED)[0][0])


def backups(sandbox: Sandbox) -> list[dict[str, Any]]:
    status = json.loads(sandbox.rollback("status", "--json").stdout)
    return list(status["backups"]["backups"])


def run_of(stdout: str) -> str:
    found = re.search(r"\d{8}T\d{6}Z-[a-z_]+-\w{4}", stdout)
    assert found, stdout
    return found[0]


def test_data_goes_back_to_the_backup_and_loses_exactly_what_was_announced(sandbox: Sandbox) -> None:
    sandbox.break_("data-corruption")
    with Load(sandbox.layout, rate=20, services=["api"]) as load:
        refused = sandbox.rollback("run", "data_recovery", *SAID)
        assert refused.returncode == 3, refused.stdout + refused.stderr
        assert not sandbox.is_locked()
        agreement = re.search(r"accept_loss=(\d+)@(\S+)", refused.stdout)
        assert agreement, refused.stdout
        rows, backup = int(agreement[1]), agreement[2]

        done = sandbox.rollback("run", "data_recovery", *SAID, "-e", f"accept_loss={rows + 1000}@{backup}", "--json")
        load.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    assert damaged(sandbox) == 0
    old = sandbox.kept_database()
    lost = missing_rows(sandbox.layout, load.record.acknowledged)
    assert lost
    assert sandbox.ask(old, f"{ROWS} WHERE email = ANY(%s)", lost) == [(len(lost),)]
    (journal,) = (sandbox.layout.control / "runs").glob("*-data_recovery-*/journals/database-admin.jsonl")
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    told = next(entry for entry in entries if (entry["step"], entry["kind"]) == ("database.verified", "outcome"))
    manifest = json.loads((sandbox.layout.backups / backup / "manifest.json").read_text())
    only_there = sandbox.ask(old, ROWS)[0][0] - manifest["tables"]['public."Contact"']["rows"]
    assert told["data"]["loss"]["tables"]['public."Contact"']["lost"] == only_there

    again = sandbox.rollback("run", "data_recovery", *SAID)
    assert (again.returncode, "nothing to change" in again.stdout) == (0, True), again.stdout


def test_a_restore_that_the_application_rejects_is_held_and_can_be_given_up(sandbox: Sandbox) -> None:
    sandbox.break_("data-corruption")
    before = (damaged(sandbox), sandbox.databases())
    words = ("-e", "severity=P0", "-e", "reason=rejected", "-e", f"accept_loss=1000@{sandbox.backups()[-1]}")
    held = sandbox.playbook("data_recovery", *words, "-e", '{"database_verify_command": ["false"]}')
    assert held.returncode == 20, held.stdout + held.stderr
    assert sandbox.shows_page()

    given_up = sandbox.rollback("resume", run_of(held.stdout), "-e", "give_up=true")
    assert given_up.returncode == 21, given_up.stdout + given_up.stderr
    assert not sandbox.shows_page()
    assert not sandbox.is_locked()
    assert (damaged(sandbox), sandbox.databases()) == before
    assert sandbox.answer(path="/api/v2/health/db").status_code == 200


def test_what_a_schema_rollback_set_aside_comes_back_with_the_fixed_release(sandbox: Sandbox) -> None:
    sandbox.break_("migration-destructive")
    with httpx.Client(base_url=sandbox.layout.url(HOSTS[0]), timeout=10, trust_env=False) as api:
        for email, phone in PHONES.items():
            api.post("/api/v2/contacts", json={"email": email, "name": "x", "phone": phone}).raise_for_status()
    words = ("-e", "severity=P0", "-e", "reason=campaigns", "-e", '{"rollback_backup_before_schema": true}')
    back = sandbox.playbook("database", *words)
    assert back.returncode == 0, back.stdout + back.stderr
    assert [one["run"] for one in backups(sandbox)] == [run_of(back.stdout)]

    deploy(sandbox.layout, "backend", "v1.2.7-fixed")
    forward = ("run", "restore_archive", "-s", "P0", "-r", "v1.2.7 is live", "-e")
    unknown = sandbox.rollback(*forward, "archive_of=20260101T000000Z-database-0000")
    assert (unknown.returncode, "archive_of" in unknown.stdout + unknown.stderr) == (2, True), unknown.stdout
    done = sandbox.rollback(*forward, f"archive_of={run_of(back.stdout)}")
    assert done.returncode == 0, done.stdout + done.stderr
    phones = 'SELECT email, phone FROM "Contact" WHERE email = ANY(%s)'
    rows = sandbox.ask(sandbox.layout.database_url, phones, [*PHONES])
    assert dict(rows) == PHONES
    again = sandbox.rollback(*forward, f"archive_of={run_of(back.stdout)}")
    assert (again.returncode, "nothing to change" in again.stdout) == (0, True), again.stdout


def test_a_backup_says_what_it_was_proved_by(sandbox: Sandbox) -> None:
    done = sandbox.rollback("run", "backup", "-r", "before the migration")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"DONE: {run_of(done.stdout)}: a restore of the backup equals what was backed up" in done.stdout
    assert [one["run"] for one in backups(sandbox)] == [run_of(done.stdout)]
