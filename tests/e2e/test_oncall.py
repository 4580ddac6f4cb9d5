"""The command in the hands of a tired person: it decides, asks, is watched, left alone, taken over and taken back."""
from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pexpect
import pytest
import yaml
from ansible_collections.marketsage.rollback.sandbox.layout import HOSTS
from ansible_collections.marketsage.rollback.tests.helpers import eventually
from conftest import BIN, GIVING_UP, POLICY, REPOSITORY, Sandbox

SERVICES = (("backend",), ("frontend",), ("full_system",), ("sessions",))
OPENED = re.compile(r"run (\d{8}T\d{6}Z-[a-z_]+-[0-9a-f]{4})")
BAD, GOOD = "v1.2.0-bad-health", "v1.1.0"
_LONGEST = 120


class Terminal:
    """The command at a terminal of 80 columns."""

    def __init__(self, sandbox: Sandbox, *words: str, **variables: str) -> None:
        environment = {**sandbox.environment(**variables), "TERM": "xterm-256color"}
        self.child = pexpect.spawn(
            str(BIN / "rollback"), list(words), env=environment, cwd=str(REPOSITORY),
            dimensions=(50, 80), encoding="utf-8", timeout=_LONGEST,
        )  # fmt: skip

    def see(self, pattern: str) -> str:
        """Wait until it is shown; what matched."""
        self.child.expect(pattern)
        return str(self.child.after)

    def end(self) -> int:
        """Wait for its end; its exit code."""
        self.child.expect(pexpect.EOF)
        self.child.close()
        return int(self.child.exitstatus)

    def close_window(self) -> None:
        """What happens to the command when its terminal dies: it is hung up, and sent nothing else."""
        self.child.ptyproc.fileobj.close()
        self.child.wait()


@pytest.fixture(scope="module")
def broken(running: Sandbox) -> Sandbox:
    running.reset()
    running.break_("full-system")
    return running


def answer(result: subprocess.CompletedProcess[str], code: int = 0) -> dict[str, Any]:
    assert result.returncode == code, result.stdout + result.stderr
    told: dict[str, Any] = json.loads(result.stdout)
    assert told["version"] == 1
    return told


def plan(sandbox: Sandbox, severity: str, service: tuple[str, ...], *more: str) -> tuple[int, list[str]]:
    """The exit code of `rollback plan` and the lines that it showed."""
    words = [*service, "-s", severity, "-r", "who decides", "--json", *more]
    result = sandbox.rollback("plan", *words)
    events = [json.loads(line) for line in result.stdout.splitlines()]
    return result.returncode, [line for event in events for line in event.get("summary", []) + event.get("lines", [])]


def test_every_severity_by_every_service_gets_what_the_matrix_says(broken: Sandbox, every_fault: bool) -> None:
    cells = [(severity, service) for severity in POLICY["severities"] for service in SERVICES]
    # Without --every-fault each severity and each service once.
    cells = cells if every_fault else cells[:: len(SERVICES) + 1]
    low = [service for severity, service in cells if severity == "P3"]
    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(lambda cell: plan(broken, *cell), cells))
        anyway = list(pool.map(lambda service: plan(broken, "P3", service, "--anyway"), low))
    for (severity, service), (code, lines) in zip(cells, told, strict=True):
        row, shown = POLICY["severities"][severity], "\n".join(lines)
        assert code == (3 if row["rollback"] == "refuse" else 0), (severity, service, shown)
        if code == 3:
            assert "REFUSED" in shown and "--anyway" in shown
            continue
        assert f"{severity} {'_'.join(service[:1])}" in shown
        assert f"approval: {row['approval']}" in shown
    assert [code for code, _lines in anyway] == [0] * len(low)
    assert {host: broken.live()[host] for host in HOSTS} == dict.fromkeys(HOSTS, BAD)
    assert not broken.is_locked()


def test_without_a_terminal_it_does_not_guess_the_answer(broken: Sandbox) -> None:
    for severity in ("P1", "P2"):
        result = broken.rollback("run", "backend", "-s", severity, "-r", "health 500")
        assert (result.returncode, "say --yes" in result.stderr) == (2, True)
    assert set(broken.live().values()) == {BAD}


def test_p1_shows_the_evaluation_and_p2_asks_what_is_to_be_done(broken: Sandbox) -> None:
    high = Terminal(broken, "run", "backend", "-s", "P1", "-r", "health 500")
    high.see("Error rate|No Prometheus")
    high.see(r"Carry out exactly this plan now\?")
    high.child.sendline("n")
    assert high.end() == 130
    medium = Terminal(broken, "run", "backend", "-s", "P2", "-r", "health 500")
    medium.see("fix forward.*roll back.*disable the feature")
    medium.child.sendline("f")
    medium.see("Nothing was changed")
    assert medium.end() == 130
    assert set(broken.live().values()) == {BAD}


def test_what_is_asked_is_answered_in_json_and_changes_nothing(broken: Sandbox) -> None:
    assessed = answer(broken.rollback("assess", "--json"))
    assert assessed["severity"] == "P0"
    assert {"API health endpoint returns 200"} <= {check["name"] for check in assessed["failing"]}
    assert assessed["command"].startswith("rollback run full_system -s P0 -r '")
    assert not answer(broken.rollback("verify", "backend", "--json"), code=5)["passed"]
    examined = answer(broken.rollback("doctor", "--json"))["results"]
    assert {result["status"] for result in examined} == {"passed"}, examined
    people = answer(broken.rollback("oncall", "--json"))["people"]
    assert {about["on_call"] for about in people.values()} == {"Primary", "Secondary", "Escalation"}
    assert answer(broken.rollback("status", "--json"))["holder"] is None


def test_doctor_tells_what_a_p0_would_lack(broken: Sandbox) -> None:
    secret = broken.layout.secrets / "smoke_password"
    secret.chmod(0o644)
    try:
        examined = answer(broken.rollback("doctor", "--json"), code=5)["results"]
    finally:
        secret.chmod(0o600)
    failed = {result["name"] for result in examined if result["status"] == "failed"}
    assert failed == {f"{host}: secrets of the checklists" for host in ("control host", *HOSTS)}


def test_somebody_else_approves_and_the_same_command_goes_through(sandbox: Sandbox) -> None:
    sandbox.break_("backend-errors")
    words = ("run", "backend", "-s", "P2", "-r", "one in ten fails", "--yes")
    refused = sandbox.rollback(*words)
    assert refused.returncode == 3
    plan_hash = str(re.search(r"rollback approve ([0-9a-f]{12})", refused.stdout)[1])  # type: ignore[index]
    keys = sandbox.layout.secrets / "keys"
    engineer = sandbox.rollback("approve", plan_hash, "--key", str(keys / "eli"), "--as", "eli")
    assert engineer.returncode == 0
    assert sandbox.rollback(*words).returncode == 3, "an engineer is no team lead"
    approved = sandbox.rollback("approve", plan_hash, "--key", str(keys / "lea"), "--as", "lea")
    assert approved.returncode == 0, approved.stderr
    done = sandbox.rollback(*words)
    assert done.returncode == 0, done.stdout
    assert set(sandbox.live().values()) == {GOOD}
    (run,) = answer(sandbox.rollback("history", "--json"))["runs"]
    assert (run["state"], run["approved_by"]) == ("done", "lea")
    assert answer(sandbox.rollback("show", run["run"], "--json"))["journal"]
    assert answer(sandbox.rollback("audit", "verify", "--json"))["runs"]


def test_an_approval_of_a_plan_that_nobody_asked_for_is_one_clear_line(sandbox: Sandbox) -> None:
    key = str(sandbox.layout.secrets / "keys/lea")
    for plan_hash, said in (("0" * 12, "nobody has asked"), ("lea", "at least the first 8 digits")):
        result = sandbox.rollback("approve", plan_hash, "--key", key, "--as", "lea")
        assert (result.returncode, said in result.stderr) == (2, True)


@contextmanager
def _unanswering(sandbox: Sandbox, host: str) -> Iterator[None]:
    """As long as this lasts a host's pm2 takes nothing in, so that no run can end."""
    daemon = int((sandbox.layout.host(host) / ".pm2/pm2.pid").read_text())
    os.kill(daemon, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(daemon, signal.SIGCONT)


def test_ctrl_c_stops_at_a_safe_boundary_and_resume_goes_on(sandbox: Sandbox) -> None:
    sandbox.break_("backend-500")
    with _unanswering(sandbox, HOSTS[1]):
        terminal = Terminal(sandbox, "run", "backend", "-s", "P0", "-r", "health 500")
        run = re.search(r"\d{8}T\d{6}Z-backend-[0-9a-f]{4}", terminal.see(r"\d{8}T\d{6}Z-backend-[0-9a-f]{4}"))[0]  # type: ignore[index]
        terminal.child.sendintr()
        terminal.see("next safe boundary")
    terminal.see("STOPPED")
    assert terminal.end() == 130
    assert sandbox.is_locked()
    resumed = sandbox.rollback("resume")
    assert (resumed.returncode, f"DONE: {run}" in resumed.stdout) == (0, True), resumed.stdout
    assert set(sandbox.live().values()) == {GOOD}
    assert not sandbox.is_locked()
    assert answer(sandbox.rollback("show", "--json"))["run"] == run
    refused = sandbox.rollback("resume")
    assert (refused.returncode, "run_id: no run is open" in refused.stderr) == (2, True)


def left_alone(sandbox: Sandbox) -> str:
    """A run whose terminal died; its id."""
    terminal = Terminal(sandbox, "run", "backend", "-s", "P0", "-r", "health 500")
    (events,) = eventually(lambda: list((sandbox.layout.control / "runs").glob("*/events.jsonl")))
    terminal.close_window()
    return str(events.parent.name)


@pytest.mark.every_fault
def test_a_run_whose_terminal_dies_goes_on_and_can_be_watched_from_another(sandbox: Sandbox) -> None:
    sandbox.break_("backend-500")
    run = left_alone(sandbox)
    watched = sandbox.rollback("attach", run)
    assert watched.returncode == 0, watched.stdout
    assert f"DONE: {run}" in watched.stdout
    assert set(sandbox.live().values()) == {GOOD}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as two operators")
def test_another_operator_takes_over_what_is_left_of_a_run(sandbox: Sandbox) -> None:
    sandbox.break_("backend-500")
    with _unanswering(sandbox, HOSTS[1]):
        run = left_alone(sandbox)
        found = subprocess.run(["pgrep", "-f", "wrapper.driver"], capture_output=True, text=True, check=False)
        for pid in found.stdout.split():
            if str(sandbox.layout.directory) in _environment(pid):
                os.killpg(int(pid), signal.SIGKILL)
    watched = sandbox.rollback("attach", run)
    assert (watched.returncode, f"rollback resume {run}" in watched.stdout) == (20, True)
    other = {"SUDO_USER": "daemon"}
    refused = sandbox.rollback("resume", run, **other)
    assert refused.returncode == 3, refused.stdout
    assert "takeover" in refused.stdout
    taken = sandbox.rollback("takeover", run, "-r", "the other one is asleep", **other)
    assert taken.returncode == 0, taken.stdout
    assert set(sandbox.live().values()) == {GOOD}
    (told,) = answer(sandbox.rollback("history", "--json"))["runs"]
    assert (told["state"], told["owner"], told["taken_over"]["reason"]) == ("done", "daemon", "the other one is asleep")


def _environment(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/environ") as file:
            return file.read()
    except OSError:
        return ""


def test_a_held_run_is_aborted_and_a_done_one_undone(sandbox: Sandbox) -> None:
    sandbox.break_("backend-500")
    sandbox.break_("backend-errors")
    words = ("-e", "severity=P0", "-e", 'reason="one in ten fails"', "-e", "to=v1.2.0-bad-health")
    held = sandbox.playbook("backend", *words, *GIVING_UP)
    assert held.returncode == 20, held.stdout
    aborted = sandbox.rollback("abort", sandbox.holder())
    assert aborted.returncode == 21, aborted.stdout
    assert set(sandbox.live().values()) == {"v1.2.1-bad-errors"}
    done = sandbox.rollback("run", "backend", "-s", "P0", "-r", "one in ten fails")
    assert done.returncode == 0, done.stdout
    undone = sandbox.rollback("undo", OPENED.search(done.stdout)[1], "-r", "it was something else")  # type: ignore[index]
    assert undone.returncode == 0, undone.stdout
    assert set(sandbox.live().values()) == {"v1.2.1-bad-errors"}


def test_deploys_are_held_back_and_a_mark_moves_the_target(sandbox: Sandbox) -> None:
    assert sandbox.rollback("freeze", "--check").returncode == 0
    assert sandbox.rollback("freeze", "-r", "looking into it", "--for", "30m").returncode == 0
    asked = sandbox.rollback("freeze", "--check")
    assert (asked.returncode, "looking into it" in asked.stderr) == (3, True)
    assert sandbox.rollback("unfreeze").returncode == 0
    assert sandbox.rollback("freeze", "--check").returncode == 0
    assert sandbox.rollback("freeze", "-r", "x y", "--for", "soon").returncode == 2
    sandbox.break_("backend-errors")
    marked = sandbox.rollback("mark", GOOD, "bad", "-r", "it leaks", "--service", "backend")
    assert marked.returncode == 0, marked.stderr
    code, lines = plan(sandbox, "P0", ("backend",))
    assert (code, any("v1.0.0" in line for line in lines)) == (0, True)


@pytest.mark.every_fault
def test_a_drill_is_held_where_an_inventory_says_how_it_is_broken(sandbox: Sandbox, tmp_path: Path) -> None:
    staging = tmp_path / "staging"
    staging.mkdir()
    (staging / "hosts.yml").symlink_to(REPOSITORY / "inventories/sandbox/hosts.yml")
    words = ("drill", "backend", "--inventory", str(staging), "--yes", "--json")
    refused = sandbox.rollback(*words)
    assert refused.returncode == 2 and "rollback_drills: the inventory of sandbox" in refused.stderr, refused.stderr
    assert set(sandbox.live().values()) == {GOOD}

    ship = [str(BIN / "rollback"), "sandbox", "deploy", "backend", BAD]
    says = {"rollback_drills": {"backend": ship}, "rollback_environment": "production"}
    # Read after hosts.yml, so that it has the last word.
    (staging / "staging.yml").write_text(yaml.safe_dump({"all": {"vars": says}}))
    refused = sandbox.rollback(*words)
    assert refused.returncode == 2 and "must not be production's; nothing was changed" in refused.stderr, refused.stderr
    assert set(sandbox.live().values()) == {GOOD}

    (staging / "staging.yml").write_text(yaml.safe_dump({"all": {"vars": {"rollback_drills": {"backend": ship}}}}))
    held = sandbox.rollback(*words)
    assert held.returncode == 0, held.stdout + held.stderr
    score = json.loads(held.stdout.splitlines()[-1])
    assert (score["scenario"], score["assessed"]["severity_right"], "answers" in score) == ("staging", True, False)
    assert Path(score["records"][0]).is_relative_to(sandbox.layout.control)
    assert sandbox.revisions(HOSTS[0])[-2]["ref"] == BAD and set(sandbox.live().values()) == {GOOD}
