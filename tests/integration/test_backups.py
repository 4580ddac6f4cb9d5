"""postgres_backup on a real PostgreSQL: what is proven, what is refused, and what a failure leaves behind."""
from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils import backups, postgres_tools, side_database
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import Journal
from ansible_collections.marketsage.rollback.plugins.modules import postgres_backup
from databases import SCHEMA, TOOLS, Boundary, Production, boundaries, run_killed, writing


@pytest.fixture
def production(database_url: str) -> Iterator[Production]:
    production = Production(database_url)
    production.execute(SCHEMA)
    yield production
    production.drop()


@pytest.fixture
def arguments(production: Production, run: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    url = production.secrets(tmp_path)["database_url_file"]
    return {"database_url_file": url, "directory": str(tmp_path / "backups"), "bin_dir": TOOLS, "run": run}


@pytest.fixture
def call(call_module: Callable[..., dict[str, Any]], arguments: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    return lambda state, **more: call_module(postgres_backup, **{**arguments, "state": state, **more})


def side_databases(production: Production) -> list[str]:
    return [
        name
        for (name,) in production.on_server("SELECT datname FROM pg_database")
        if name.startswith(side_database.SCRATCH)
    ]


def left(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def test_a_backup_is_proven_while_the_application_writes(production: Production, call: Any, tmp_path: Path) -> None:
    with writing(production):
        result = call("taken")
    assert result.get("changed"), result
    backup = result["backup"]
    assert backup["state"] == "proven"
    assert backup["tables"]['public."Customer"']["rows"] == 500
    assert backup["tables"]['public."Order"']["rows"] >= 320
    assert backup["age"] < 600
    assert "/" in backup["wal_position"]
    assert left(tmp_path / "backups") == [backup["id"]]
    assert side_databases(production) == []
    assert [one["id"] for one in call("listed")["backups"]] == [backup["id"]]
    assert any("is proven" in line for line in result["progress"])


def test_the_same_run_takes_no_second_one(call: Any) -> None:
    first = call("taken")["backup"]
    again = call("taken")
    assert (again["changed"], again["backup"]["id"]) == (False, first["id"])


def test_check_mode_takes_nothing(call: Any, tmp_path: Path) -> None:
    assert call("taken", check=True)["changed"]
    assert left(tmp_path / "backups") == []
    assert call("listed")["backups"] == []


TAKING = boundaries(
    (postgres_tools.Tools, "dump"),
    (side_database, "create"),
    (postgres_tools.Tools, "restore"),
    (backups, "verify_contents"),
    (backups, "write_atomically"),
    (backups.os, "rename"),
    (Journal, "append"),
)


@pytest.mark.parametrize("where", TAKING, ids=str)
def test_killed_anywhere_nothing_is_left_that_could_be_taken_for_a_backup(
    production: Production, call: Any, arguments: dict[str, Any], tmp_path: Path, where: Boundary
) -> None:
    run_killed(postgres_backup, {"state": "taken", **arguments}, where)
    complete = call("listed")["backups"]
    again = call("taken")
    assert again["backup"]["state"] == "proven", again
    assert again["changed"] is not bool(complete)
    assert left(tmp_path / "backups") == [again["backup"]["id"]]
    assert side_databases(production) == []
    tools = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
    assert production.on_server(tools, postgres_tools.APPLICATION_NAME) == [(0,)]


def test_a_full_disk_leaves_nothing(production: Production, call: Any, tmp_path: Path) -> None:
    """Every file that the dump's processes write ends at 16 kB, as on a disk that is full."""
    production.execute("INSERT INTO \"no key\" SELECT md5(i::text), 'x' FROM generate_series(1, 20000) i")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "pg_dump").write_text(f'#!/bin/sh\nulimit -f 16\nexec {TOOLS}/pg_dump "$@"\n')
    (tools / "pg_dump").chmod(0o755)
    result = call("taken", bin_dir=str(tools))
    assert result["exit_code"] == 20
    assert "pg_dump ended with" in result["msg"]
    assert left(tmp_path / "backups") == []
    assert call("listed")["backups"] == []
    assert side_databases(production) == []


def test_a_dump_that_was_cut_off_is_not_proven(
    production: Production, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = postgres_tools.Tools.dump

    def cut_off(tools: Any, server: Any, directory: str, snapshot: str) -> None:
        real(tools, server, directory, snapshot)
        largest = max(Path(directory).glob("*.dat.gz"), key=lambda path: path.stat().st_size)
        with largest.open("r+b") as file:
            file.truncate(largest.stat().st_size * 4 // 5)

    monkeypatch.setattr(postgres_tools.Tools, "dump", cut_off)
    result = call("taken")
    assert result["exit_code"] == 20, result
    assert left(tmp_path / "backups") == []
    assert side_databases(production) == []


def test_a_restore_that_is_not_equal_to_the_snapshot_is_no_proof(
    production: Production, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = postgres_tools.Tools.restore

    def altered(tools: Any, server: Any, directory: str, database: str) -> None:
        real(tools, server, directory, database)
        production.on_server("UPDATE \"Customer\" SET score = score + 1 WHERE id = 7", database=database)

    monkeypatch.setattr(postgres_tools.Tools, "restore", altered)
    result = call("taken")
    assert result["exit_code"] == 20
    assert 'public."Customer": 500 rows with hash' in result["msg"]
    assert left(tmp_path / "backups") == []


def test_a_backup_that_was_damaged_later_is_shown_as_such(call: Any, tmp_path: Path) -> None:
    backup = Path(call("taken")["backup"]["path"])
    next((backup / "dump").glob("*.dat.gz")).write_bytes(b"short")
    (listed,) = call("listed")["backups"]
    assert listed["state"] == "damaged"
    assert "has 5 bytes instead of" in listed["damage"]


def test_no_secret_is_on_disk_in_arguments_or_in_the_record(
    call: Any, production: Production, run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    real = backups.postgres_tools.command.execute

    def watched(name: str, command: list[str], *others: Any, **options: Any) -> Any:
        seen.append(command)
        return real(name, command, *others, **options)

    monkeypatch.setattr(backups.postgres_tools.command, "execute", watched)
    result = call("taken")
    journal = Path(run["state_dir"], "journal", f"{run['id']}.jsonl").read_text()
    assert [json.loads(line)["kind"] for line in journal.splitlines()] == ["intent", "outcome"]
    secret = "p@ss/word"
    assert secret not in str(seen) + journal + str(result)
    assert [command[0].rpartition("/")[2] for command in seen] == ["pg_dump", "pg_restore"]


def test_a_directory_that_is_no_absolute_path_is_refused(call: Any) -> None:
    result = call("taken", directory="backups/../../etc")
    assert result["exit_code"] == 2
    assert result["msg"].startswith("directory: ")
