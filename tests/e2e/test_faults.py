"""Procedures are killed at every task boundary and every journalled point, under load, and resumed."""
from __future__ import annotations

import random
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from ansible_collections.marketsage.rollback.plugins.module_utils.ending import QUEUED
from ansible_collections.marketsage.rollback.sandbox.layout import HOSTS
from ansible_collections.marketsage.rollback.sandbox.load import Load, missing_rows
from ansible_collections.marketsage.rollback.tests.helpers import further
from conftest import REPOSITORY, Sandbox

FAULTS = Path(__file__).with_name("faults")
SEED = 20261124
REQUESTS_PER_SECOND = 20
MANY = 100_000


@dataclass(frozen=True)
class Case:
    """A procedure, what it has to mend, and at how many of its points it is killed where not at all of them.

    With none it is left to `make faults`.
    """

    playbook: str
    scenario: str = ""
    words: tuple[str, ...] = ()
    sample: int = 0
    severity: str = "P0"

    def __str__(self) -> str:
        return f"{self.playbook}-{self.severity}"

    def command(self, sandbox: Sandbox) -> list[str]:
        said = ["-e", f"severity={self.severity}", "-e", 'reason="health answers 500"', *self.words]
        if self.recovers:
            said += ["-e", f"accept_loss={MANY}@{sandbox.backups()[-1]}"]
        return ["ansible-playbook", f"playbooks/{self.playbook}.yml", *said]

    @property
    def recovers(self) -> bool:
        """Whether the data goes back to a backup, which loses what was written since."""
        return self.playbook == "data_recovery"

    @property
    def rolls(self) -> bool:
        """Whether hosts go back one after the other, without the page."""
        return self.playbook == "backend" and self.severity != "P0"


CASES = [
    Case("backend", "backend-500", sample=1),
    Case("backend", "backend-errors", severity="P1", sample=1),
    Case("full_system", "migration-destructive"),
    Case("database", "migration-destructive"),
    Case("data_recovery", "data-corruption"),
    Case("sessions", words=("-e", "sessions_created_before=2100-01-01T00:00:00Z")),
]


@dataclass(frozen=True)
class Undisturbed:
    """The points and the end state of a run that nobody disturbs."""

    case: Case
    points: list[str] = field(repr=False)
    end: dict[str, Any]


def start(sandbox: Sandbox, case: Case, records: Path, kill_at: str = "") -> int:
    """Run a procedure with the fault plugins to its end, or to its kill; its exit code."""
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
            ["sh", "-c", 'echo $$ > "$0/group"; exec "$@"', str(records), *case.command(sandbox)],
            cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        return process.wait(480)


def points(records: Path) -> list[str]:
    """Every point of a run, as kind:number."""
    return [
        f"{kind}:{number}"
        for kind in ("task", "journal")
        for number in range(1, len((records / f"{kind}.log").read_text().splitlines()) + 1)
    ]


def end_state(sandbox: Sandbox, old_sessions: set[bytes]) -> dict[str, Any]:
    """What must be the same however often a run was killed."""
    keys = set(store(sandbox).scan_iter(count=1000))
    return {
        "live": sandbox.live(),
        "answers": {host: host_health(sandbox, host) for host in HOSTS},
        "rollbacks": {host: [r["ref"] for r in sandbox.revisions(host) if r["action"] == "rollback"] for host in HOSTS},
        "page": sandbox.shows_page(),
        "status": sandbox.answer().status_code,
        "locked": sandbox.is_locked(),
        "changed_twice": {host: changed_twice(sandbox.journal(host)) for host in HOSTS},
        "database": database(sandbox),
        "databases": [name.partition("_before_")[:2] for name in sandbox.databases()],
        "old sessions": len(old_sessions & keys),
        "other keys": sorted(key for key in keys if not key.startswith(b"sess:")),
    }


def store(sandbox: Sandbox) -> redis.Redis:
    return redis.Redis(port=sandbox.layout.port("redis"))


def sessions(sandbox: Sandbox) -> set[bytes]:
    return set(store(sandbox).scan_iter("sess:*", count=1000))


def database(sandbox: Sandbox) -> dict[str, Any]:
    """Migrations, columns and what was archived; an archive's name has the run's id."""
    questions = {
        "migrations": "SELECT migration_name FROM _prisma_migrations ORDER BY 1",
        "columns": "SELECT table_name, column_name FROM information_schema.columns "
        "WHERE table_schema = 'public' ORDER BY 1, 2",
        "archived": "SELECT table_name, column_name FROM information_schema.columns "
        "WHERE table_schema LIKE 'rollback_%%' ORDER BY 1, 2",
    }
    return {name: sandbox.ask(sandbox.layout.database_url, question) for name, question in questions.items()}


def set_aside(sandbox: Sandbox, emails: list[str]) -> set[str]:
    """Which of these rows are in the database that a recovery has put aside."""
    question = 'SELECT email FROM "Contact" WHERE email = ANY(%s)'
    return {email for (email,) in sandbox.ask(sandbox.kept_database(), question, emails)}


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


def users_are_safe(sandbox: Sandbox, undisturbed: Undisturbed) -> bool:
    """Users meet the page, what they met before, or a rollback that is complete on every host it reaches them from."""
    answer = sandbox.answer()
    if undisturbed.case.rolls:
        return answer.status_code == 200 and len(sandbox.drained()) < len(HOSTS)
    if answer.headers.get("x-maintenance") == "on" or answer.status_code >= 500:
        return True
    return bool(sandbox.live() == undisturbed.end["live"])


def broken(sandbox: Sandbox, case: Case) -> set[bytes]:
    """Break what the case breaks; the sessions there are then."""
    if case.scenario:
        sandbox.break_(case.scenario)
    return sessions(sandbox)


@pytest.fixture(scope="module", params=[case if case.sample else further(case)[0] for case in CASES], ids=str)
def undisturbed(
    request: pytest.FixtureRequest, running: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    case: Case = request.param
    running.reset()
    old_sessions = broken(running, case)
    records = tmp_path_factory.mktemp("undisturbed")
    assert start(running, case, records) == 0, (records / "output").read_text()
    return Undisturbed(case, points(records), end_state(running, old_sessions))


def test_an_undisturbed_run_ends_well(undisturbed: Undisturbed) -> None:
    end = undisturbed.end
    assert end["live"] == dict.fromkeys(HOSTS, "v1.1.0")
    assert (end["status"], end["page"], end["locked"]) == (200, False, False)
    assert ("Contact", "name") in end["database"]["columns"]
    assert len(end["other keys"]) == 26
    destructive = undisturbed.case.scenario == "migration-destructive"
    assert (("Contact_columns", "phone") in end["database"]["archived"]) == destructive
    assert (end["old sessions"] == 0) == (undisturbed.case.playbook == "sessions")


def test_killed_anywhere_the_same_command_ends_in_the_same_state(
    sandbox: Sandbox, undisturbed: Undisturbed, tmp_path: Path, every_fault: bool
) -> None:
    case, every = undisturbed.case, undisturbed.points
    for number, point in enumerate(every if every_fault else random.Random(SEED).sample(every, case.sample)):
        if number:
            sandbox.reset()
        records = tmp_path / point.replace(":", "-")
        with Load(sandbox.layout, rate=REQUESTS_PER_SECOND, services=["api"]) as load:
            old_sessions = broken(sandbox, case)
            deployed = time.time() - load.record.started
            # What was written before that has other addresses now.
            damaged = len(load.record.acknowledged) if case.recovers else 0
            code = start(sandbox, case, records, kill_at=point)
            said = (records / "output").read_text()
            assert code in (0, -9), f"{point}: {said}"
            assert users_are_safe(sandbox, undisturbed), f"{point}: {said}"
            # Killed while a message was on its way, nobody knows whether it arrived: that one is left to the operator.
            assert start(sandbox, case, records) in (0, QUEUED), f"{point}: {(records / 'output').read_text()}"
        assert end_state(sandbox, old_sessions) == undisturbed.end, f"{point}: {(records / 'output').read_text()}"
        lost = missing_rows(sandbox.layout, load.record.acknowledged[damaged:])
        assert set(lost) == (set_aside(sandbox, lost) if case.recovers else set()), point
        if case.rolls:
            met = [answer for answer in load.record.answers if answer.sent > deployed]
            missed = [answer for answer in met if answer.kind in ("error", "maintenance")]
            assert met and not missed, f"{point}: {missed} since {deployed}: {(records / 'output').read_text()}"
