"""The running sandbox: brought up, broken, reset, loaded and taken down by its own commands."""
from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis
from ansible_collections.marketsage.rollback.sandbox import (
    containers,
    processes,
    scenarios,
    seed,
    servers,
    stack,
    state,
)
from ansible_collections.marketsage.rollback.sandbox.layout import DEFAULT_PORT_BASE, HOSTS, Layout
from ansible_collections.marketsage.rollback.sandbox.load import Answer, Load, Record, missing_rows
from ansible_collections.marketsage.rollback.tests.helpers import further

PACKAGE = "ansible_collections.marketsage.rollback.sandbox"
IMPORT_ROOT = Path(__file__).parents[2] / "collections"
FIRST_BASE = DEFAULT_PORT_BASE + 2000
# Of the other scenarios each is what a test of a rollback begins with.
ONLY_HERE = {"pool", "api-proxy", "console-error"}


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(IMPORT_ROOT), **variables}
    command = [sys.executable, "-m", PACKAGE, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


def run_json(layout: Layout, *arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--directory", str(layout.directory), "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def ask(layout: Layout, service: str, path: str) -> httpx.Response:
    return httpx.get(layout.url("front") + path, headers={"host": f"{service}.marketsage.com"}, trust_env=False)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose name leaves room for the names of sockets."""
    with tempfile.TemporaryDirectory(prefix="sb-") as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def port_base() -> int:
    def free(base: int) -> bool:
        return not any(stack.is_taken(port) for port in stack.ports(Layout(Path("/tmp"), base)).values())

    return next(base for base in range(FIRST_BASE, FIRST_BASE + 1000, 100) if free(base))


@pytest.fixture(scope="module")
def sandbox(port_base: int) -> Iterator[Layout]:
    parent = Path(tempfile.mkdtemp(prefix="sb-"))
    layout = Layout(parent / "sandbox", port_base)
    try:
        result = run("up", "--directory", str(layout.directory), "--port-base", str(port_base))
        assert result.returncode == 0, result.stderr
        yield layout
    finally:
        if layout.directory.exists():
            stack.down(layout)
        shutil.rmtree(parent)


@pytest.fixture
def maintenance(sandbox: Layout) -> Iterator[str]:
    """The page put up for good, with a message that would be markup if it were not escaped."""
    message = 'Back <b>soon</b> & "safe"'
    sandbox.maintenance_map.write_text(f"all on\nmessage {message}\n")
    servers.reload_haproxy(sandbox)
    yield "Back &lt;b&gt;soon&lt;/b&gt; &amp; &quot;safe&quot;"
    sandbox.maintenance_map.write_text(servers.MAINTENANCE_OFF)
    servers.reload_haproxy(sandbox)


def test_help_imports_nothing_heavy_and_touches_nothing(short_path: Path) -> None:
    look = f"import sys, {PACKAGE}.commands; print(sorted({{'httpx', 'psycopg', 'redis'}} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(IMPORT_ROOT)}
    imported = subprocess.run([sys.executable, "-c", look], env=environment, capture_output=True, text=True, check=True)
    assert imported.stdout.strip() == "[]"
    result = run("up", "--help", ROLLBACK_SANDBOX=str(short_path / "sandbox"))
    assert result.returncode == 0
    assert list(short_path.iterdir()) == []


def test_a_taken_port_is_named_before_anything_is_started(short_path: Path, port_base: int) -> None:
    directory = short_path / "sandbox"
    with socket.create_server(("127.0.0.1", port_base + 95)) as server:
        taken_by_front = server.getsockname()[1]
        result = run("up", "--directory", str(directory), "--port-base", str(taken_by_front))
    assert result.returncode == 2
    assert result.stderr.strip() == (
        f"Error: port-base: in use already: {taken_by_front} (front); name another base with --port-base"
    )
    assert not directory.exists()


def test_a_directory_of_something_else_is_left_alone(short_path: Path) -> None:
    (short_path / "thesis.txt").write_text("do not lose me")
    for command in ("up", "down", "status", "reset"):
        result = run(command, "--directory", str(short_path))
        assert result.returncode == 2, command
        assert result.stderr.startswith("Error: directory: "), command
        assert len(result.stderr.splitlines()) == 1, command
    assert (short_path / "thesis.txt").read_text() == "do not lose me"


def test_a_part_that_fails_is_named_with_its_log_and_nothing_is_left(short_path: Path, port_base: int) -> None:
    program = short_path / "haproxy"
    program.write_text("#!/bin/sh\necho cannot find my licence\nexit 3\n")
    program.chmod(0o755)
    layout = Layout(short_path / "sandbox", port_base + 50)
    arguments = ("up", "--directory", str(layout.directory), "--port-base", str(layout.port_base))
    result = run(*arguments, RAY_SERVE_HAPROXY_BINARY_PATH=str(program))
    assert result.returncode == 1
    assert "Error: haproxy: the process has ended" in result.stderr
    assert "cannot find my licence" in result.stderr
    assert "Traceback" not in result.stderr
    assert processes.survivors(layout) == []


def test_up_again_says_so_and_starts_nothing(sandbox: Layout) -> None:
    before, parts = {process.pid for process in processes.survivors(sandbox)}, state.read(sandbox)["processes"]
    result = run("up", "--directory", str(sandbox.directory))
    assert result.returncode == 0
    assert "was up already" in result.stdout
    assert state.read(sandbox)["processes"] == parts
    # A part's own helper that was about to end may have.
    assert {process.pid for process in processes.survivors(sandbox)} <= before


def test_up_leaves_the_history_of_production(sandbox: Layout) -> None:
    seen = run_json(sandbox, "status")
    revisions = [json.loads(line) for line in (sandbox.host("api-1") / "revisions.jsonl").read_text().splitlines()]
    assert [revision["ref"] for revision in revisions] == list(stack.HISTORY)
    good = revisions[-1]["release"]
    expected = {"current": good, "answering": [good], "health": [200]}
    assert seen["hosts"] == dict.fromkeys(HOSTS, expected)
    marks = json.loads(sandbox.marks.read_text())
    assert {mark["mark"] for service in marks.values() for mark in service.values()} == {"good"}
    assert set(marks["backend"]) == {revision["commit"] for revision in revisions}
    assert seen["railway"]["release"] in {commit[:12] for commit in marks["frontend"]}
    assert seen["rows"] == {"contacts": seed.CONTACTS, "sessions": seed.SESSIONS}


def test_secrets_are_private(sandbox: Layout) -> None:
    assert {place.stat().st_mode & 0o777 for place in (sandbox.secrets, sandbox.secrets / "keys")} == {0o700}
    secrets = [file for file in sandbox.secrets.rglob("*") if file.is_file()]
    private = [file for file in secrets if file != sandbox.allowed_signers and file.suffix != ".pub"]
    files = [*private, *(sandbox.host(name) / "ecosystem.config.cjs" for name in HOSTS)]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    told = [" ".join(process.cmdline()) for process in processes.survivors(sandbox)]
    kept = [file.read_text().strip() for file in private if "database_url" not in file.name]
    assert not [secret for secret in kept if any(secret in line for line in told)]


def test_a_sandbox_that_is_not_whole_says_what_is_missing(sandbox: Layout) -> None:
    processes.stop(sandbox, "sink")
    try:
        for command in (["up"], ["break", "auth"], ["reset"], ["load"]):
            result = run(*command, "--directory", str(sandbox.directory))
            assert result.returncode == 1, command
            assert "sink not running; run: rollback sandbox down" in result.stderr, command
    finally:
        servers.start_sink(sandbox)


def test_the_page_is_for_everybody_and_not_to_be_kept(sandbox: Layout, maintenance: str) -> None:
    for service, path in (("api", "/api/v2/health"), ("app", "/"), ("admin", "/")):
        answer = ask(sandbox, service, path)
        assert answer.status_code == 503
        assert answer.headers["x-maintenance"] == "on"
        assert answer.headers["cache-control"] == "no-store"
        assert int(answer.headers["retry-after"]) > 0
        assert maintenance in answer.text
    assert httpx.get(sandbox.url("api-1") + "/api/v2/health").status_code == 200


def test_the_page_survives_a_reload_and_a_restart(sandbox: Layout, maintenance: str) -> None:
    servers.reload_haproxy(sandbox)
    assert ask(sandbox, "app", "/").headers.get("x-maintenance") == "on"
    processes.stop(sandbox, "haproxy")
    with pytest.raises(httpx.ConnectError):
        ask(sandbox, "app", "/")
    servers.start_haproxy(sandbox)
    answer = ask(sandbox, "app", "/")
    assert answer.headers.get("x-maintenance") == "on"
    assert maintenance in answer.text


def test_the_load_tells_good_from_bad_and_counts_rows(sandbox: Layout) -> None:
    load = Load(sandbox, rate=50, requests=50)
    result = load.start().wait()
    assert result["kinds"] == {"good": 50, "bad": 0, "maintenance": 0, "error": 0}
    assert result["acknowledged"] == len(load.record.acknowledged) == 5
    assert sum(sum(bucket.values()) - bucket["at"] for bucket in result["timeline"]) == pytest.approx(50)
    bad = Load(sandbox, rate=50, requests=10, services=["api"], good=[]).start().wait()
    assert bad["kinds"]["bad"] == 10
    assert bad["turning_points"]["last_bad"] > 0


def test_the_turning_points_of_a_rollback() -> None:
    met = [(0.0, 0.1, "good"), (1.0, 1.1, "bad"), (2.0, 2.1, "maintenance"), (1.9, 2.3, "bad"), (2.2, 2.4, "bad")]
    met += [(3.0, 3.1, "maintenance"), (4.0, 4.1, "error", "503"), (4.2, 4.3, "good"), (5.0, 5.1, "good")]
    assert Record(answers=[Answer(*one) for one in met]).result()["turning_points"] == {
        "first_page": 2.1,
        "last_page": 3.1,
        "last_bad": 2.4,
        "first_good_after": 4.3,
        "bad_sent_after_page": 1,
        "errors_sent_after_page": {"503": 1},
    }


def test_the_load_knows_the_page_from_an_error(sandbox: Layout, maintenance: str) -> None:
    page = Load(sandbox, rate=50, requests=10).start().wait()
    assert page["kinds"]["maintenance"] == 10
    assert page["acknowledged"] == 0
    processes.stop(sandbox, "haproxy")
    refused = Load(sandbox, rate=50, requests=10).start().wait()
    servers.start_haproxy(sandbox)
    assert refused["errors"] == {"refused": 10}


def test_a_lost_row_is_found(sandbox: Layout) -> None:
    load = Load(sandbox, rate=50, requests=30, services=["api"])
    load.start().wait()
    assert missing_rows(sandbox, load.record.acknowledged) == []
    lost = load.record.acknowledged[1]
    with psycopg.connect(sandbox.database_url) as database:
        database.execute('DELETE FROM "Contact" WHERE email = %s', [lost])
    assert missing_rows(sandbox, load.record.acknowledged) == [lost]


def test_the_load_command_shows_what_it_met(sandbox: Layout) -> None:
    result = run_json(sandbox, "load", "--rate", "50", "--seconds", "2", "--service", "api")
    assert result["requests"] == result["kinds"]["good"] == 100
    assert result["lost"] == []


def test_the_sink_answers_and_keeps(sandbox: Layout) -> None:
    bearer = {"authorization": "Bearer xoxb"}
    with httpx.Client(base_url=sandbox.url("sink"), trust_env=False) as sink:
        message = {"channel": "#incidents", "text": "rolling back"}
        posted = sink.post("/api/chat.postMessage", json=message, headers=bearer).json()
        update = {"channel": posted["channel"], "ts": posted["ts"], "text": "done"}
        assert sink.post("/api/chat.update", json=update, headers=bearer).json()["ok"]
        unknown = sink.post("/api/chat.update", json={**update, "ts": "1.0"}, headers=bearer).json()
        assert unknown == {"ok": False, "error": "message_not_found"}
        assert sink.post("/services/T/B/X", json={"text": "hello"}).text == "ok"
        sms = sink.post("/2010-04-01/Accounts/AC1/Messages.json", data={"To": "+1555", "Body": "P0"}, auth=("AC1", "x"))
        assert (sms.status_code, sms.json()["status"]) == (201, "queued")
        received = sink.get("/").json()
        assert [one["body"].get("text") for one in received[:2]] == ["rolling back", "done"]
        assert received[0]["headers"]["authorization"] == "Bearer xoxb"
        assert sink.post("/_control", json={"mode": "error"}).json() == {"mode": "error"}
        assert sink.post("/services/T/B/X", json={}).status_code == 500
        assert sink.post("/_control", json={"mode": "fail"}).is_success
        assert sink.post("/services/T/B/X", json={}).text == "invalid_token"
        assert sink.post("/_control", json={"mode": "sulk"}).status_code == 400
        assert sink.post("/_control", json={"mode": "hang"}).is_success
        with pytest.raises(httpx.ReadTimeout):
            sink.post("/services/T/B/X", json={}, timeout=0.5)
        assert sink.post("/_control", json={"mode": "answer"}).is_success


def test_an_unknown_scenario_is_refused(sandbox: Layout) -> None:
    result = run("break", "everything", "--directory", str(sandbox.directory))
    assert result.returncode == 2
    assert result.stderr.startswith("Error: scenario: 'everything' is not one of backend-500, ")


@pytest.mark.parametrize("name", [*sorted(ONLY_HERE), *further(*sorted(scenarios.all_scenarios().keys() - ONLY_HERE))])
def test_break_ships_a_release_that_shows_its_symptom(sandbox: Layout, name: str) -> None:
    if "backend" not in scenarios.all_scenarios()[name].deploys:
        run_json(sandbox, "reset")  # a backend that is broken already would hide what else is
    if scenarios.find(name).stack and (reason := containers.why_not()):
        pytest.skip(reason)
    deployed = run_json(sandbox, "break", name)["deployed"]
    seen = state.read(sandbox)
    for service, release in deployed.items():
        live = [host["answering"] for host in seen["hosts"].values()]
        answering = live if service == "backend" else [[seen["railway"]["release"]]]
        assert set(map(tuple, answering)) == {(release["release"],)}
    if seen["hosts"]["api-1"]["health"] == [500]:
        answer = ask(sandbox, "api", "/api/v2/health")
        assert (answer.status_code, answer.headers.get("x-maintenance")) == (503, None)


def test_reset_puts_everything_back(sandbox: Layout) -> None:
    run_json(sandbox, "break", "migration-destructive")
    sandbox.maintenance_map.write_text("all on\nmessage broken\n")
    servers.reload_haproxy(sandbox)
    (sandbox.control / "runs").mkdir(exist_ok=True)
    processes.stop(sandbox, "api-2", signal.SIGKILL)
    processes.stop(sandbox, "railway")
    servers.start_railway(sandbox)  # which has no deployment then
    with servers.maintenance_connection(sandbox) as server:
        server.execute("CREATE DATABASE leftover")
    result = run_json(sandbox, "reset")
    test_up_leaves_the_history_of_production(sandbox)
    assert result["maintenance"] is False
    assert [entry.name for entry in sandbox.control.iterdir()] == ["marks.json"]
    with servers.maintenance_connection(sandbox) as server:
        names = {name for (name,) in server.execute("SELECT datname FROM pg_database WHERE NOT datistemplate")}
    assert names == {"postgres", "marketsage"}
    with psycopg.connect(sandbox.database_url) as database:
        columns = database.execute("SELECT column_name FROM information_schema.columns WHERE table_name = 'Contact'")
        assert "name" in {name for (name,) in columns}
    assert redis.Redis(port=sandbox.port("redis")).exists("bull:campaigns:0", "revoked:0000") == 2
    load = Load(sandbox, rate=30, requests=30).start().wait()
    assert load["kinds"]["good"] == 30


def test_down_leaves_no_process_and_no_port(sandbox: Layout) -> None:
    # Parts that nothing has recorded, or whose record is lost, are found as well.
    (sandbox.pids / "redis").unlink()
    processes.find(sandbox, "railway").send_signal(signal.SIGKILL)  # type: ignore[union-attr]
    result = run("down", "--directory", str(sandbox.directory))
    assert result.returncode == 0, result.stderr
    assert "none left" in result.stdout
    assert processes.survivors(sandbox) == []
    assert not sandbox.directory.exists()
    assert [port for port in stack.ports(sandbox).values() if stack.is_taken(port)] == []
    again = run("down", "--directory", str(sandbox.directory))
    assert (again.returncode, again.stdout) == (0, f"There is no sandbox in {sandbox.directory}.\n")
