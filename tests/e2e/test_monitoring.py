"""The monitoring stack in real containers: one good revision back, and nothing else is touched."""
from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest
from ansible_collections.marketsage.rollback.sandbox import containers
from conftest import BIN, Sandbox

SAID = ("-r", "no target is scraped")


@pytest.fixture(scope="module")
def stack(running: Sandbox) -> Iterator[Sandbox]:
    """The stack on a revision that scrapes nothing of the backend."""
    if reason := containers.why_not():
        pytest.skip(reason)
    running.reset()
    running.break_("monitoring")
    yield running
    containers.down(running.layout)


def checkout(stack: Sandbox, *arguments: str) -> str:
    directory = stack.layout.monitoring / "marketsage-monitoring"
    return subprocess.check_output(["git", *arguments], cwd=directory, text=True).strip()


def test_one_good_revision_back_with_an_approval_and_what_did_not_change_goes_on(stack: Sandbox) -> None:
    before = containers.started(stack.layout)
    asked = stack.rollback("run", "monitoring", "-s", "P2", *SAID, "--yes")
    assert asked.returncode == 3, asked.stdout
    plan = re.search(r"rollback approve ([0-9a-f]{12});", asked.stdout)
    assert plan and containers.started(stack.layout) == before, asked.stdout
    key = str(stack.layout.secrets / "keys" / "lea")
    assert stack.rollback("approve", plan[1], "--key", key, "--as", "lea").returncode == 0

    done = stack.rollback("run", "monitoring", "-s", "P2", *SAID, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    after = containers.started(stack.layout)
    assert containers.health(stack.layout) == containers.HEALTHY
    assert checkout(stack, "describe", "--tags") == "v1.1.0"
    assert (after["grafana"], after["prometheus"] != before["prometheus"]) == (before["grafana"], True)
    (kept,) = (stack.layout.monitoring / "backups").glob("*/prometheus")
    assert any((kept / "wal").iterdir())

    again = stack.rollback("run", "monitoring", "-s", "P0", *SAID)
    assert again.returncode == 0 and "nothing to change" in again.stdout, again.stdout
    assert containers.started(stack.layout) == after


def test_a_revision_that_is_not_valid_is_held_before_anything_is_touched(stack: Sandbox) -> None:
    """What the runbook's HEAD~1 of the bad revision is. One that changes files alone is then undone by a reload."""
    checkout(stack, "checkout", "--quiet", "--detach", "origin/main")
    containers.deploy(stack.layout, "v1.2.1-bad-scheme")
    invalid = checkout(stack, "rev-parse", "HEAD~1")
    bad, before = checkout(stack, "rev-parse", "HEAD"), containers.started(stack.layout)
    held = stack.rollback("run", "monitoring", "-s", "P0", *SAID, "--to", invalid)
    assert held.returncode == 20, held.stdout
    assert "validate: " in held.stdout and "could not parse expression" in held.stdout
    assert (checkout(stack, "rev-parse", "HEAD"), containers.started(stack.layout)) == (bad, before)

    run = re.search(r"rollback resume (\S+-monitoring-\w+)", held.stdout)
    assert run, held.stdout
    instead = stack.rollback("run", "monitoring", "-s", "P0", *SAID, "--to", "v1.1.0", "--instead-of", run[1])
    assert instead.returncode == 0, instead.stdout + instead.stderr
    assert (containers.health(stack.layout), containers.started(stack.layout)) == (containers.HEALTHY, before)


def test_the_runbooks_own_line_ends_what_was_not_even_changed(stack: Sandbox) -> None:
    command = [str(BIN / "podman-compose"), "-p", containers.project(stack.layout), "down"]
    subprocess.run(
        command, cwd=stack.layout.monitoring / "marketsage-monitoring", check=True, capture_output=True, timeout=60,
        env=stack.environment(CONTAINERS_CONF=str(stack.layout.monitoring / "containers.conf")),
    )  # fmt: skip
    assert containers.started(stack.layout) == {}
    assert containers.health(stack.layout) == {}
