"""The procedures as an operator runs them, on the real parts, with users about."""
from __future__ import annotations

import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from ansible_collections.marketsage.rollback.sandbox.layout import HOSTS
from ansible_collections.marketsage.rollback.sandbox.load import Load, missing_rows
from conftest import BIN, GIVING_UP, POLICY, REPOSITORY, Sandbox

SAID = ("-e", "severity=P0", "-e", 'reason="health answers 500"')
GOOD = dict.fromkeys(HOSTS, "v1.1.0")


def plan_in(output: str) -> list[str]:
    """The plan's lines as a playbook shows them."""
    shown = re.search(r'"run_resolved.summary": (\[.*?\])', output, re.DOTALL)
    assert shown, output
    lines: list[str] = json.loads(shown.group(1))
    return lines


def test_full_system_restores_service_loses_nothing_and_run_again_changes_nothing(sandbox: Sandbox) -> None:
    sandbox.break_("full-system")
    with Load(sandbox.layout, rate=15) as load:
        check = sandbox.playbook("full_system", *SAID, "--check")
        assert check.returncode == 0, check.stdout
        assert sandbox.live() == dict.fromkeys(HOSTS, "v1.2.0-bad-health")
        assert not sandbox.is_locked()
        deployments = len(sandbox.railway()["deployments"])

        done = sandbox.playbook("full_system", *SAID)
        assert done.returncode == 0, done.stdout + done.stderr
        result = load.stop()

    assert plan_in(check.stdout) == plan_in(done.stdout)
    assert "DONE: " in done.stdout
    assert sandbox.live() == GOOD
    assert len(sandbox.railway()["deployments"]) == deployments + 1
    assert sandbox.answer().status_code == 200
    assert "Admin" in sandbox.answer("admin", "/").text
    assert not sandbox.is_locked()
    turning = result["turning_points"]
    assert (turning["bad_sent_after_page"], turning["errors_sent_after_page"]) == (0, {})
    assert missing_rows(sandbox.layout, load.record.acknowledged) == []

    again = sandbox.playbook("full_system", *SAID)
    assert again.returncode == 0, again.stdout
    assert "DONE: nothing to change" in again.stdout
    assert not re.search(r"changed=[1-9]", again.stdout)
    assert len(sandbox.railway()["deployments"]) == deployments + 1


def test_a_journal_that_cannot_be_kept_is_said_and_changes_nothing_else(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "cat").write_text('#!/bin/sh\necho "cat: $1: not today" >&2\nexit 1\n')
    (tmp_path / "cat").chmod(0o755)
    sandbox.break_("backend-500")
    done = sandbox.playbook("backend", *SAID, PATH=f"{tmp_path}:{BIN}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stdout + done.stderr
    for host in HOSTS:
        assert re.search(rf"NOTE: the journal of {host} was not kept: .*not today", done.stdout), done.stdout
    assert (sandbox.live(), sandbox.is_locked()) == (GOOD, False)


@pytest.mark.every_fault
def test_full_system_leaves_a_frontend_that_is_good_as_it_is(sandbox: Sandbox) -> None:
    sandbox.break_("backend-500")
    deployments = len(sandbox.railway()["deployments"])
    done = sandbox.playbook("full_system", *SAID)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (sandbox.live(), sandbox.answer().status_code) == (GOOD, 200)
    assert len(sandbox.railway()["deployments"]) == deployments


def test_a_target_that_is_broken_itself_stays_behind_the_page_until_another_is_chosen(sandbox: Sandbox) -> None:
    sandbox.break_("backend-500")
    sandbox.break_("backend-errors")
    held = sandbox.playbook("backend", *SAID, "-e", "to=v1.2.0-bad-health", *GIVING_UP)
    assert held.returncode == 20, held.stdout + held.stderr
    assert sandbox.shows_page()
    assert re.search(r"HELD: .*answered 500", held.stdout)
    next_step = re.search(r"NEXT: .*rollback resume (\S+-backend-\w+)", held.stdout)
    assert next_step, held.stdout
    assert sandbox.is_locked()

    second = sandbox.playbook("backend", "-e", "severity=P0", "-e", 'reason="another reason"')
    assert second.returncode == 3, second.stdout
    assert re.search(r"REFUSED: .*lock: run \S+ of \S+ since", second.stdout)

    instead = sandbox.rollback("run", "backend", "-s", "P0", "-r", "the other one", "--instead-of", next_step[1])
    assert instead.returncode == 0, instead.stdout + instead.stderr
    assert (sandbox.live(), sandbox.answer().status_code, sandbox.is_locked()) == (GOOD, 200, False)


def test_the_page_comes_back_when_users_are_not_served_although_every_host_is_well(sandbox: Sandbox) -> None:
    sandbox.break_("backend-500")
    for host in HOSTS:
        sandbox.balancer(f"set server api/{host} state maint")
    held = sandbox.playbook("backend", *SAID)
    assert held.returncode == 20, held.stdout + held.stderr
    assert (sandbox.live(), sandbox.shows_page()) == (GOOD, True)

    for host in HOSTS:
        sandbox.balancer(f"set server api/{host} state ready")
    resumed = sandbox.playbook("backend", *SAID)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert sandbox.answer().status_code == 200


@pytest.mark.every_fault
def test_a_release_whose_build_is_gone_is_built_again(sandbox: Sandbox) -> None:
    sandbox.break_("backend-500")
    built = [revision["release"] for revision in sandbox.revisions("api-2") if revision["ref"] == "v1.1.0"]
    shutil.rmtree(sandbox.layout.host("api-2") / "releases" / built[0])
    done = sandbox.playbook("backend", *SAID)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "built first on api-2" in done.stdout
    assert (sandbox.live(), sandbox.answer().status_code) == (GOOD, 200)


def test_below_p0_the_backend_goes_back_host_by_host_and_nobody_meets_a_page(sandbox: Sandbox) -> None:
    sandbox.break_("backend-errors")
    lower = sandbox.playbook("backend", "-e", "severity=P2", "-e", 'reason="lists answer 500"', "--check")
    assert lower.returncode == 0, lower.stdout + lower.stderr
    with Load(sandbox.layout, rate=30, services=["api"]) as load:
        done = sandbox.playbook("backend", "-e", "severity=P1", "-e", 'reason="lists answer 500"')
        result = load.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    for output in (lower.stdout, done.stdout):
        assert "traffic: rolling, without the page, in 2 batches, stopping at the first that fails" in plan_in(output)
    assert (sandbox.live(), sandbox.drained(), sandbox.is_locked()) == (GOOD, [], False)
    assert (result["kinds"]["maintenance"], result["kinds"]["error"]) == (0, 0), result["errors"]
    assert missing_rows(sandbox.layout, load.record.acknowledged) == []


def test_the_only_host_in_rotation_goes_back_behind_the_page_at_any_severity(sandbox: Sandbox) -> None:
    sandbox.break_("backend-errors")
    sandbox.balancer("set server api/api-2 state maint")
    with Load(sandbox.layout, rate=30, services=["api"]) as load:
        done = sandbox.playbook("backend", "-e", "severity=P1", "-e", 'reason="lists answer 500"')
        result = load.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    assert any("not without the page, because there is only api-1" in line for line in plan_in(done.stdout))
    assert sandbox.live() == GOOD
    assert result["kinds"]["maintenance"] > 0
    assert result["turning_points"]["errors_sent_after_page"] == {}


def test_the_frontend_alone_goes_back_without_the_page(sandbox: Sandbox) -> None:
    sandbox.break_("admin-middleware")
    with Load(sandbox.layout, rate=10, services=["app", "admin"]) as load:
        done = sandbox.playbook("frontend", "-e", "severity=P1", "-e", 'reason="admin portal is gone"')
        result = load.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    assert any(line.startswith("  without ") for line in plan_in(done.stdout))
    assert "BY HAND: once the fix is ready, let automatic deploys go on: rollback unfreeze" in done.stdout
    assert "Admin" in sandbox.answer("admin", "/").text
    assert (result["kinds"]["maintenance"], result["kinds"]["error"]) == (0, 0), result["errors"]


@pytest.mark.every_fault
def test_an_additive_migration_goes_back_by_code_alone(sandbox: Sandbox) -> None:
    sandbox.break_("migration-additive")
    done = sandbox.playbook("backend", *SAID)
    assert done.returncode == 0, done.stdout + done.stderr
    assert any(line.startswith("database: additive") for line in plan_in(done.stdout))
    assert sandbox.live() == GOOD


def test_a_destructive_migration_goes_back_with_the_code_and_loses_no_row(sandbox: Sandbox) -> None:
    with Load(sandbox.layout, rate=30, services=["api"]) as load:
        sandbox.break_("migration-destructive")
        check = sandbox.playbook("full_system", *SAID, "--check")
        assert check.returncode == 0, check.stdout + check.stderr
        assert sandbox.live() == dict.fromkeys(HOSTS, "v1.2.4-destructive")
        done = sandbox.playbook("full_system", *SAID)
        load.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    assert any(line.startswith("database: destructive") for line in plan_in(done.stdout))
    assert sandbox.live() == GOOD
    assert missing_rows(sandbox.layout, load.record.acknowledged) == []
    with psycopg.connect(sandbox.layout.database_url) as database:
        mine = "SELECT count(*) FROM \"Contact\" WHERE name LIKE 'load %%' AND email = ANY(%s)"
        named = database.execute(mine, [load.record.acknowledged]).fetchone()
        ahead = database.execute("SELECT migration_name FROM _prisma_migrations WHERE migration_name ~ 'full_name'")
        assert ahead.fetchall() == []
    assert named == (len(load.record.acknowledged),)

    again = sandbox.playbook("full_system", *SAID)
    assert "DONE: nothing to change" in again.stdout


OUT_OF_REACH = """
all: {children: {backend: {hosts: {api-2: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 9}}}}}
"""


def test_a_host_out_of_reach_is_left_out_by_name_and_taken_along_when_it_is_back(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.break_("backend-500")
    inventory = tmp_path / "inventory"
    shutil.copytree(REPOSITORY / "inventories/sandbox", inventory)
    (inventory / "without.yml").write_text(OUT_OF_REACH)
    words = ("backend", "-s", "P0", "-r", "health answers 500", "-i", str(inventory))
    refused = sandbox.rollback("run", *words)
    assert (refused.returncode, "--without api-2" in refused.stdout) == (3, True), refused.stdout
    shown = sandbox.rollback("status", "-i", str(inventory)).stdout
    assert re.search(r"^live api-1 .* v1\.2\.0-bad-health ", shown, re.MULTILINE), shown
    assert re.search(r"^api-2: .*Connection refused", shown, re.MULTILINE), shown

    done = sandbox.rollback("run", *words, "--without", "api-2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sandbox.live() == {"api-1": "v1.1.0", "api-2": "v1.2.0-bad-health"}
    assert sandbox.drained() == ["api-2"]
    assert {sandbox.answer().status_code for _time in range(6)} == {200}

    back = sandbox.playbook("backend", *SAID)
    assert back.returncode == 0, back.stdout + back.stderr
    assert (sandbox.live(), sandbox.drained()) == (GOOD, [])


UNREACHABLE = ("-e", "ansible_connection=ssh", "-e", "ansible_host=127.0.0.1", "-e", "ansible_port=9")
UNKNOWN_GATE = ("-e", json.dumps({"rollback_policy": {**POLICY, "gate": {**POLICY["gate"], "passes": "three"}}}))
NO_SUCH_CHECK = ("-e", json.dumps({"rollback_checklists": {"backend": [{"name": "up", "reqests": []}]}}))
NO_SUCH_ADDRESS = ("-e", json.dumps({"backend_addresses": {"ap": {"url": "x"}}}))
NO_SUCH_SECRET = ("-e", json.dumps({"smoke_secret_files": {"password": "/nowhere"}}))
NO_SUCH_NAME = ("-e", json.dumps({"smoke_secret_files": {}}))
BAD_INPUT = [
    (("-e", "severity=P9", "-e", "reason=testing"), 2, "severity: 'P9'"),
    (("-e", "reason=testing"), 2, "severity: ''"),
    (("-e", "severity=P0"), 2, "reason: "),
    ((*SAID, "-e", "to=HEAD~1"), 2, "to: 'HEAD~1'"),
    ((*SAID, "-e", "to=--upload-pack=x"), 2, "to: '--upload-pack=x'"),
    ((*SAID, "-e", "to=v9.9.9"), 2, "to: backend has no release 'v9.9.9'"),
    ((*SAID, "-e", "run_id=../../etc/passwd"), 2, "run_id: "),
    (("-e", "run_id=20260101T000000Z-backend-0000"), 2, "there is no run 20260101T000000Z-backend-0000"),
    (("-e", "severity=P3", "-e", "reason=typo"), 3, "Fix forward preferred"),
    ((*SAID, "-e", "backend_root=/nowhere"), 3, "/nowhere"),
    ((*SAID, "-e", "database_url_file=/nowhere"), 3, "database"),
    ((*SAID, *NO_SUCH_SECRET), 3, "backend: api-1 could not prove its release: secret_files.password: /nowhere"),
    ((*SAID, *UNREACHABLE), 3, "could not be read on 2 of 2"),
    ((*SAID, "-i", "localhost,"), 2, "control_dir: "),
    ((*SAID, *UNKNOWN_GATE), 2, "rollback_policy: argument 'passes' is of type str"),
    ((*SAID, *NO_SUCH_CHECK), 2, "rollback_checklists: unknown: rollback_checklists.backend.reqests"),
    ((*SAID, *NO_SUCH_ADDRESS), 2, "addresses: <api>/api/v2/health is asked, but addresses.api.url does not say where"),
    ((*SAID, *NO_SUCH_NAME), 2, "checks: 'Authentication endpoints responding' uses <smoke_password>, which"),
]


@pytest.fixture(scope="module")
def broken(running: Sandbox) -> Sandbox:
    running.reset()
    running.break_("backend-500")
    return running


@pytest.mark.parametrize(("arguments", "code", "said"), BAD_INPUT)
def test_bad_input_is_one_clear_line_and_changes_nothing(
    broken: Sandbox, arguments: tuple[str, ...], code: int, said: str
) -> None:
    before = (broken.live(), {host: len(broken.revisions(host)) for host in HOSTS})
    refused = broken.playbook("backend", *arguments)
    assert refused.returncode == code, refused.stdout + refused.stderr
    closing = [line for line in refused.stdout.splitlines() if line.startswith(("BAD INPUT: ", "REFUSED: "))]
    assert len(closing) == 1, refused.stdout
    assert said in closing[0]
    assert "Traceback" not in refused.stdout + refused.stderr
    assert (broken.live(), {host: len(broken.revisions(host)) for host in HOSTS}) == before
    assert not broken.shows_page()
    assert not broken.is_locked()


def test_an_empty_group_is_a_failure(broken: Sandbox, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    variables = f"{{rollback_environment: test, rollback_control_dir: {tmp_path / 'control'}}}"
    inventory.write_text(f"all: {{vars: {variables}, children: {{backend: {{hosts: {{}}}}}}}}\n")
    refused = broken.playbook("backend", *SAID, "-i", str(inventory))
    assert refused.returncode == 3, refused.stdout + refused.stderr
    assert "REFUSED: localhost: backend: its group has no host in the inventory" in refused.stdout


COMMAND_LINE = [
    (("run", "backend", "-s", "P7", "-r", "testing"), "severity: 'P7'"),
    (("run", "backend", "-r", "testing"), "severity: ''"),
    (("run", "mainframe", "-s", "P0", "-r", "testing"), "'mainframe' is not one of backend, frontend, full_system"),
    (("run", "backend", "-s", "P0", "-r", "x"), "reason: "),
    (("run", "backend", "-s", "P0", "-r", "testing", "--to", "main^"), "to: 'main^'"),
    (("run", "backend", "-s", "P1", "-r", "testing"), "there is no terminal"),
    (("resume", "nonsense"), "run_id: 'nonsense'"),
    (("sandbox", "break", "everything"), "scenario: 'everything'"),
]


@pytest.mark.parametrize(("arguments", "said"), COMMAND_LINE)
def test_the_command_refuses_bad_words_with_exit_code_2(
    broken: Sandbox, arguments: tuple[str, ...], said: str
) -> None:
    refused = broken.rollback(*arguments)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert said in refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
    assert not broken.is_locked()


def test_status_shows_what_is_live_and_what_could_be_restored(sandbox: Sandbox) -> None:
    sandbox.break_("backend-500")
    shown = sandbox.rollback("status", "--json")
    assert shown.returncode == 0, shown.stderr
    status: dict[str, Any] = json.loads(shown.stdout)
    assert status["reports"]["api-1"]["live"]["ref"] == "v1.2.0-bad-health"
    assert status["reports"]["api-1"]["candidates"][0]["ref"] == "v1.1.0"
    assert (status["holder"], status["maintenance"]["haproxy"]["enabled"]) == (None, False)
    assert "v1.2.0-bad-health" in sandbox.rollback("status").stdout


def test_the_command_streams_versioned_events_and_resumes(sandbox: Sandbox) -> None:
    sandbox.break_("backend-500")
    run = sandbox.rollback("run", "backend", "-s", "P0", "-r", "health answers 500", "--json")
    assert run.returncode == 0, run.stdout + run.stderr
    events = [json.loads(line) for line in run.stdout.splitlines()]
    assert {event["version"] for event in events} == {1}
    ended = events[-1]
    assert (ended["event"], ended["exit_code"]) == ("ended", 0)
    finished = [event["step"] for event in events if event["event"] == "step_finished"]
    assert finished.index("Verify health") < finished.index("Restore traffic")

    again = sandbox.rollback("resume", ended["run"])
    assert again.returncode == 0, again.stdout + again.stderr
    assert sandbox.live() == GOOD


def test_what_tabs_opened_before_a_frontend_rollback_miss_is_counted_and_told(sandbox: Sandbox) -> None:
    sandbox.break_("console-error")
    assets = set(re.findall(r"/_next/static/[^\"\\]+", sandbox.answer("app", "/").text))
    tab = {"host": "app.marketsage.com", "next-action": "7f" + "0" * 40, "content-type": "text/plain"}
    met = {"assets": 0, "actions": 0}
    with ThreadPoolExecutor() as pool:
        running = pool.submit(sandbox.playbook, "frontend", "-e", "severity=P0", "-e", 'reason="errors are written"')
        while not running.done():
            met["assets"] += sum(sandbox.answer("app", path).status_code == 404 for path in assets)
            action = httpx.post(sandbox.layout.url("front"), headers=tab, content="[]", trust_env=False, timeout=10)
            met["actions"] += action.headers.get("x-nextjs-action-not-found") == "1"
        done = running.result()
    assert done.returncode == 0, done.stdout + done.stderr
    gone = [path for path in assets if sandbox.answer("app", path).status_code == 404]
    line = r"NOTE: tabs opened before miss (\d+) of \d+ assets .*not found: (\d+); .*refused: (\d+)"
    told = re.search(line, done.stdout)
    assert told, done.stdout
    missing, not_found, refused = map(int, told.groups())
    assert missing >= len(gone) > 0
    assert 0 < not_found <= met["assets"] and 0 < refused <= met["actions"]
    (outcome,) = (sandbox.layout.control / "runs").glob("*/outcome.json")
    assert told[0] == f"NOTE: {json.loads(outcome.read_text())['notes'][0]}"[: len(told[0])]
