"""postgres_fence on a real PostgreSQL, with applications that write and sessions that do not want to leave."""
from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils import database_fence, postgres
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import Journal
from ansible_collections.marketsage.rollback.plugins.modules import postgres_fence
from databases import READ_ONLY, Boundary, Production, boundaries, run_killed, writing


@pytest.fixture
def production(database_url: str) -> Iterator[Production]:
    production = Production(database_url)
    yield production
    production.drop()


@pytest.fixture
def call(
    call_module: Callable[..., dict[str, Any]], production: Production, run: dict[str, Any], tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    files = production.secrets(tmp_path)
    return lambda state, **arguments: call_module(postgres_fence, **{"state": state, "run": run, **files, **arguments})


def settings(production: Production) -> list[Any]:
    """Everything the server keeps about who may use the database and how, as its catalogue has it."""
    return [
        production.on_server(
            "SELECT datallowconn, datconnlimit, datacl::text FROM pg_database WHERE datname = %s", production.name
        ),
        production.on_server(
            "SELECT setrole::regrole::text, setconfig FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase"
            " WHERE datname = %s ORDER BY 1",
            production.name,
        ),
    ]


@pytest.mark.parametrize("rogue", [False, True])
def test_no_row_is_acknowledged_after_the_fence(production: Production, call: Any, rogue: bool) -> None:
    with writing(production, rogue) as writer:
        result = call("fenced")
        there = production.on_server('SELECT id FROM "Order"', database=production.name)
        acknowledged_then = list(writer.acknowledged)
        tries = writer.refused
        while writer.refused < tries + 20:
            assert writer.is_alive()
        acknowledged = writer.stop()
    assert result["fenced"]
    assert result["readable_by"] == "superusers"
    assert result["sessions_ended"] >= 1
    assert "too many connections" in result["probe"]["said"]
    assert acknowledged == acknowledged_then
    assert {number for (number,) in there} >= set(acknowledged)


def test_open_restores_every_setting_and_lets_the_application_write(production: Production, call: Any) -> None:
    production.on_server(f'ALTER DATABASE "{production.name}" CONNECTION LIMIT 17')
    production.on_server(f"ALTER DATABASE \"{production.name}\" SET work_mem = '9MB'")
    production.on_server(f'ALTER ROLE {production.role} IN DATABASE "{production.name}" SET {READ_ONLY} = off')
    production.on_server(f"ALTER ROLE {production.role} SET {READ_ONLY} = off")
    before = settings(production)
    fenced = call("fenced")
    assert fenced["after"]["read_only"] == {"": "on", production.role: "on"}
    with psycopg.connect(production.admin_url) as reader, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        reader.execute("CREATE TABLE sneaked (id int)")
    opened = call("open")
    assert opened["changed"]
    assert opened["readable_by"] == "everybody"
    assert opened["probe"]["wrote"]
    assert settings(production) == before
    production.execute("INSERT INTO \"Order\" VALUES (1, 'after')")


def test_a_role_with_a_setting_of_its_own_everywhere_is_read_only_here_too(production: Production, call: Any) -> None:
    production.on_server(f"ALTER ROLE {production.role} SET {READ_ONLY} = off")
    before = settings(production)
    assert call("fenced")["after"]["read_only"][production.role] == "on"
    call("open")
    assert settings(production) == before


def test_run_again_nothing_changes(production: Production, call: Any) -> None:
    assert call("fenced")["changed"]
    fenced = settings(production)
    again = call("fenced")
    assert not again["changed"]
    assert again["fenced"]
    assert again["probe"]["connected"] is False
    assert settings(production) == fenced
    assert call("open")["changed"]
    assert not call("open")["changed"]


def test_check_mode_shows_and_changes_nothing(production: Production, call: Any) -> None:
    before = settings(production)
    result = call("fenced", check=True, run=None)
    assert result["changed"]
    assert result["diff"]["after"]["connection_limit"] == 0
    assert settings(production) == before
    call("fenced")
    assert call("open", check=True)["fenced"] is False
    assert settings(production) != before


def test_a_session_that_holds_a_transaction_is_ended(production: Production, call: Any) -> None:
    with psycopg.connect(production.libpq_url) as holder:
        holder.execute("INSERT INTO \"Order\" VALUES (1, 'not acknowledged')")
        assert call("fenced")["sessions_ended"] == 1
        with pytest.raises(psycopg.OperationalError):
            holder.commit()
    assert production.on_server('SELECT * FROM "Order"', database=production.name) == []


def test_an_application_that_is_a_superuser_is_shut_out_too(
    database_url: str, call_module: Any, run: dict[str, Any], tmp_path: Path
) -> None:
    production = Production(database_url, superuser=True)
    arguments = {**production.secrets(tmp_path), "run": run}
    before = settings(production)
    with writing(production, rogue=True) as writer:
        fenced = call_module(postgres_fence, state="fenced", **arguments)
        acknowledged = list(writer.acknowledged)
        tries = writer.refused
        while writer.refused < tries + 20:
            assert writer.is_alive()
        assert writer.acknowledged == acknowledged
    assert (fenced["fenced"], fenced["readable_by"]) == (True, "nobody")
    assert not call_module(postgres_fence, state="fenced", **arguments)["changed"]
    assert call_module(postgres_fence, state="open", **arguments)["probe"]["wrote"]
    assert settings(production) == before
    production.drop()


@pytest.fixture
def killed(production: Production, run: dict[str, Any], tmp_path: Path) -> Callable[[str, Boundary], None]:
    arguments = {"run": run, **production.secrets(tmp_path)}
    return lambda state, where: run_killed(postgres_fence, {"state": state, **arguments}, where)


SHUTTING = boundaries(
    (database_fence.Memory, "keep"),
    (database_fence, "apply"),
    (postgres, "end_sessions"),
    (database_fence, "check_shut_out"),
    (Journal, "append"),
)
OPENING = boundaries(
    (database_fence, "apply"),
    (database_fence, "check_let_in"),
    (database_fence.Memory, "forget"),
    (Journal, "append"),
)


@pytest.mark.parametrize("where", SHUTTING, ids=str)
def test_killed_while_shutting_the_next_call_shuts_and_open_restores(
    production: Production, call: Any, killed: Any, where: Boundary
) -> None:
    production.on_server(f'ALTER DATABASE "{production.name}" CONNECTION LIMIT 17')
    before = settings(production)
    with psycopg.connect(production.libpq_url):
        killed("fenced", where)
        assert call("fenced")["fenced"]
    call("open")
    assert settings(production) == before


@pytest.mark.parametrize("where", OPENING, ids=str)
def test_killed_while_opening_the_next_call_opens(
    production: Production, call: Any, killed: Any, where: Boundary
) -> None:
    before = settings(production)
    call("fenced")
    killed("open", where)
    assert call("open")["fenced"] is False
    assert settings(production) == before
    assert not call("open")["changed"]


def test_a_fence_that_nobody_here_remembers_is_not_opened_by_guess(production: Production, call: Any) -> None:
    production.on_server(f'ALTER DATABASE "{production.name}" CONNECTION LIMIT 0')
    result = call("open")
    assert result["exit_code"] == 30
    assert "connection limit" in result["msg"]


def test_a_password_that_is_wrong_proves_no_fence(
    production: Production, call: Any, run: dict[str, Any], tmp_path: Path
) -> None:
    Path(tmp_path, "application_url_file").write_text(production.url.replace("app%3Apass", "wrong"))
    result = call("fenced")
    assert result["exit_code"] == 30
    assert "authentication failed" in result["msg"]
    journal = Path(run["state_dir"], "journal", f"{run['id']}.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in journal] == ["intent", "failed"]


def test_urls_of_two_databases_are_refused(production: Production, call: Any, tmp_path: Path) -> None:
    Path(tmp_path, "application_url_file").write_text(f"{production.libpq_url}_other")
    result = call("fenced")
    assert result["exit_code"] == 2
    assert result["msg"].startswith("application_url_file: ")


def test_a_server_that_is_gone_is_unknown(call: Any, tmp_path: Path) -> None:
    Path(tmp_path, "database_url_file").write_text("postgresql://app:secret@127.0.0.1:1/shop")
    result = call("fenced")
    assert result["exit_code"] == 30
    assert "secret" not in str(result)
