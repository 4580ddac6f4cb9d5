"""The backend's rollback is killed at every task boundary and every journalled point, and resumed."""
from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import HOSTS, REPOSITORY, Sandbox

FAULTS = Path(__file__).with_name("faults")
COMMAND = ["ansible-playbook", "playbooks/backend.yml", "-e", "severity=P0", "-e", 'reason="health answers 500"']
SAMPLE = 6
SEED = 20261124


def start(sandbox: Sandbox, records: Path, kill_at: str = "") -> int:
    """Run the rollback with the fault plugins to its end, or to its kill; its exit code."""
    records.mkdir(exist_ok=True)
    environment = sandbox.environment(
        PYTHONPATH=str(FAULTS),
        ROLLBACK_FAULTS=str(records),
        ROLLBACK_FAULT_AT=kill_at,
        ANSIBLE_CALLBACK_PLUGINS=str(FAULTS / "callback"),
        ANSIBLE_CALLBACKS_ENABLED="marketsage.rollback.outcome,faults",
    )
    with (records / "output").open("a") as output:
        process = subprocess.Popen(
            ["sh", "-c", 'echo $$ > "$0/group"; exec "$@"', str(records), *COMMAND],
            cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        return process.wait(180)


def points(records: Path) -> list[str]:
    """Every point of a run, as kind:number."""
    return [
        f"{kind}:{number}"
        for kind in ("task", "journal")
        for number in range(1, len((records / f"{kind}.log").read_text().splitlines()) + 1)
    ]


def end_state(sandbox: Sandbox) -> dict[str, Any]:
    """What must be the same however often a run was killed."""
    return {
        "live": sandbox.live(),
        "answers": {host: host_health(sandbox, host) for host in HOSTS},
        "rollbacks": {host: [r["ref"] for r in sandbox.revisions(host) if r["action"] == "rollback"] for host in HOSTS},
        "page": sandbox.shows_page(),
        "status": sandbox.answer().status_code,
        "locked": sandbox.is_locked(),
        "changed_twice": {host: changed_twice(sandbox.journal(host)) for host in HOSTS},
    }


def host_health(sandbox: Sandbox, host: str) -> set[tuple[int, str]]:
    url = f"{sandbox.layout.url(host)}/api/v2/health"
    answers = [httpx.get(url, trust_env=False) for _ in range(6)]
    return {(answer.status_code, answer.headers["x-release"]) for answer in answers}


def changed_twice(journal: list[dict[str, Any]]) -> list[str]:
    """Steps that were begun again although their outcome was on record."""
    done: set[str] = set()
    again = []
    for entry in journal:
        if entry["kind"] == "intent" and entry["step"] in done:
            again.append(entry["step"])
        if entry["kind"] == "outcome":
            done.add(entry["step"])
    return again


def users_are_safe(sandbox: Sandbox, undisturbed: dict[str, Any]) -> bool:
    """Users meet the page, what they met before, or a rollback that is complete on every host."""
    answer = sandbox.answer()
    if answer.headers.get("x-maintenance") == "on" or answer.status_code >= 500:
        return True
    return sandbox.live() == undisturbed["live"]


@pytest.fixture(scope="module")
def undisturbed(running: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The points and the end state of a run that nobody disturbs."""
    running.reset()
    running.break_("backend-500")
    records = tmp_path_factory.mktemp("undisturbed")
    assert start(running, records) == 0, (records / "output").read_text()
    return {**end_state(running), "points": points(records)}


def test_an_undisturbed_run_ends_well(undisturbed: dict[str, Any]) -> None:
    assert undisturbed["live"] == dict.fromkeys(HOSTS, "v1.1.0")
    assert undisturbed["rollbacks"] == {host: ["v1.1.0"] for host in HOSTS}
    assert (undisturbed["status"], undisturbed["page"], undisturbed["locked"]) == (200, False, False)


def test_killed_anywhere_the_same_command_ends_in_the_same_state(
    sandbox: Sandbox, undisturbed: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    every = undisturbed["points"]
    chosen = every if request.config.getoption("--every-fault") else random.Random(SEED).sample(every, SAMPLE)
    wanted = {key: value for key, value in undisturbed.items() if key != "points"}
    for number, point in enumerate(chosen):
        if number:
            sandbox.reset()
        sandbox.break_("backend-500")
        records = tmp_path / point.replace(":", "-")
        code = start(sandbox, records, kill_at=point)
        said = (records / "output").read_text()
        assert code in (0, -9), f"{point}: {said}"
        assert users_are_safe(sandbox, undisturbed), f"{point}: {said}"
        assert start(sandbox, records) == 0, f"{point}: {(records / 'output').read_text()}"
        assert end_state(sandbox) == wanted, f"{point}: {(records / 'output').read_text()}"

