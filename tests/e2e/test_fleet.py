"""The backend's rollback over machines by real SSH: host by host without the page, or all at once behind it."""
from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.marketsage.rollback.sandbox import machines, servers, stack
from ansible_collections.marketsage.rollback.sandbox.load import Load, missing_rows
from ansible_collections.marketsage.rollback.sandbox.processes import BadInput
from ansible_collections.marketsage.rollback.tests.helpers import eventually
from conftest import IMPATIENT, REPOSITORY, Sandbox, up_on_free_ports

HOSTS = ("api-1", "api-2", "api-3")
GOOD, BAD = "v1.1.0", "v1.2.1-bad-errors"
SECONDS = 300


@pytest.fixture(scope="module")
def raised() -> Iterator[Sandbox]:
    try:
        machines.refuse_impossible(len(HOSTS))
    except BadInput as error:
        pytest.skip(str(error))
    directory = Path(tempfile.mkdtemp(prefix="rollback-fleet-"))
    layout = up_on_free_ports(directory, len(HOSTS))
    yield Sandbox(layout)
    stack.down(layout)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def fleet(raised: Sandbox) -> Sandbox:
    """Three machines, each with a release that answers some requests with 500."""
    if raised.is_locked() or raised.drained() or raised.answer().status_code != 200:
        raised.reset()
    if raised.live() != dict.fromkeys(HOSTS, BAD):
        raised.break_("backend-errors")
    return raised


def run(fleet: Sandbox, severity: str, *arguments: str, **rolling: int) -> subprocess.Popen[str]:
    """Start the rollback as an operator would, with a policy of its own."""
    policy = {**IMPATIENT, "rolling": {**IMPATIENT["rolling"], **rolling}}
    said = {"severity": severity, "reason": "lists answer 500", "rollback_policy": policy}
    return subprocess.Popen(
        ["ansible-playbook", "-i", str(fleet.layout.inventory), "playbooks/backend.yml", "-e", json.dumps(said),
         *arguments],
        cwd=REPOSITORY, env=fleet.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def roll_back(fleet: Sandbox, severity: str, *arguments: str, **rolling: int) -> tuple[int, str]:
    """The exit code and what was printed."""
    process = run(fleet, severity, *arguments, **rolling)
    output, _ = process.communicate(timeout=SECONDS)
    return process.returncode, output


def closing(output: str) -> list[str]:
    """What is printed after Ansible's own recap."""
    return [line for line in output.partition("PLAY RECAP")[2].splitlines() if line.partition(":")[0].isupper()]


def spoil(fleet: Sandbox, host: str, ref: str) -> None:
    """Have a release say on one host that it is another, so that it cannot pass its gate there."""
    release = next(one["release"] for one in fleet.revisions(host) if one["ref"] == ref)
    file = fleet.layout.host(host) / "releases" / release / "dist" / "main.js"
    text = file.read_text().replace("release: RELEASE, pid", "release: 'another', pid")
    # The file is shared with the other hosts and the cache.
    file.unlink()
    file.write_text(text)


def cure(fleet: Sandbox, host: str, ref: str) -> None:
    """Take that back, as a repair of the host would."""
    release = next(one["release"] for one in fleet.revisions(host) if one["ref"] == ref)
    file = fleet.layout.host(host) / "releases" / release / "dist" / "main.js"
    file.write_text(file.read_text().replace("release: 'another', pid", "release: RELEASE, pid"))
    home = fleet.layout.host(host)
    command = machines.there(fleet.layout, host, [str(home / "bin" / "pm2"), "restart", "marketsage-backend"],
                             {"PM2_HOME": str(home / ".pm2"), "PATH": f"{home}/bin:/usr/bin:/bin"}, home)  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def finishes(fleet: Sandbox, severity: str = "P1", **rolling: int) -> bool:
    """Whether the same command, given again, ends well with every host on the good release and in rotation."""
    code, output = roll_back(fleet, severity, **rolling)
    assert code == 0, output
    return (fleet.live(), fleet.drained(), fleet.is_locked()) == (dict.fromkeys(HOSTS, GOOD), [], False)


def out_of_rotation(fleet: Sandbox) -> list[str]:
    """Who gets no requests, also after HAProxy has read its configuration again."""
    before = fleet.drained()
    servers.reload_haproxy(fleet.layout)
    assert fleet.drained() == before
    return before


def served(load: Load) -> dict[str, Any]:
    """What the load met, once nobody is seen to have missed anything."""
    result = load.stop()
    assert (result["kinds"]["error"], result["kinds"]["maintenance"]) == (0, 0), result["errors"]
    return result


def test_host_by_host_no_request_fails(fleet: Sandbox) -> None:
    with Load(fleet.layout, rate=30, services=["api"]) as load:
        code, output = roll_back(fleet, "P1")
        result = served(load)
    assert code == 0, output
    for line in ("without the page, in 3 batches", "batch 1: api-1, to show", "batch 2: api-2", "batch 3: api-3"):
        assert line in output
    assert (fleet.live(), fleet.drained()) == (dict.fromkeys(HOSTS, GOOD), [])
    assert missing_rows(fleet.layout, load.record.acknowledged) == []
    assert "bad" not in result["timeline"][-1]


def test_a_host_that_fails_its_gate_stays_drained_and_the_others_serve(fleet: Sandbox) -> None:
    """The first one shows that the release does not hold; of the others one may fail."""
    spoil(fleet, "api-1", GOOD)
    code, output = roll_back(fleet, "P1", max_failed=34)
    assert code == 20, output
    said = closing(output)
    assert said[0].startswith("HELD: api-1: is release "), output
    assert any(line.startswith("DRAINED: api-1: ") for line in said), output
    assert fleet.live() == {"api-1": GOOD, "api-2": BAD, "api-3": BAD}
    assert out_of_rotation(fleet) == ["api-1"]

    cure(fleet, "api-1", GOOD)
    spoil(fleet, "api-2", GOOD)
    with Load(fleet.layout, rate=30, services=["api"]) as load:
        process = run(fleet, "P1", max_failed=34)
        eventually(lambda: fleet.drained() == ["api-2", "api-3"])
        # As after a reload that knows of no drain, or by a hand at the balancer's console.
        fleet.balancer("set server api/api-2 state ready")
        output, _ = process.communicate(timeout=SECONDS)
        result = served(load)
    assert process.returncode == 20, output
    said = closing(output)
    assert said[0].startswith("HELD: api-2: is release "), output
    assert any(line.startswith("DRAINED: api-2: ") for line in said), output
    assert out_of_rotation(fleet) == ["api-2"]
    assert fleet.live() == dict.fromkeys(HOSTS, GOOD)
    assert "bad" not in result["timeline"][-1]

    cure(fleet, "api-2", GOOD)
    assert finishes(fleet, max_failed=34)


def test_a_host_that_is_lost_in_the_middle_stays_drained_until_it_is_back(fleet: Sandbox) -> None:
    process = run(fleet, "P1", max_failed=34)
    eventually(lambda: "api-2" in fleet.drained())
    machines.cut(fleet.layout, "api-2")
    try:
        output, _ = process.communicate(timeout=SECONDS)
    finally:
        machines.mend(fleet.layout, "api-2")
    assert process.returncode == 20, output
    said = closing(output)
    assert said[0].startswith("HELD: ") and "api-2" in said[0], output
    assert any(line.startswith("DRAINED: api-2: ") for line in said), output
    assert out_of_rotation(fleet) == ["api-2"]
    assert (fleet.live()["api-1"], fleet.live()["api-3"]) == (GOOD, GOOD)
    assert finishes(fleet, max_failed=34)


def test_a_host_out_of_reach_or_with_another_key_is_refused_before_anything_changes(fleet: Sandbox) -> None:
    known = fleet.layout.ssh / "known_hosts"
    text = known.read_text()
    first, second, *_rest = text.splitlines()
    known.write_text(text.replace(second.split()[2], first.split()[2]))
    machines.cut(fleet.layout, "api-3")
    # Not over a connection that was opened before.
    with tempfile.TemporaryDirectory(prefix="cp-") as directory:
        try:
            code, output = roll_back(fleet, "P1", "-e", f"ansible_control_path_dir={directory}")
        finally:
            machines.mend(fleet.layout, "api-3")
            known.write_text(text)
    assert code == 3, output
    said = closing(output)[0]
    assert "backend: could not be read on 2 of 3 hosts (api-2: " in said, said
    # Where ssh ended before Ansible wrote to it, Ansible does not tell why.
    assert "Host key verification failed.; api-3: " in said or "Broken pipe; api-3: " in said, said
    assert (fleet.live(), fleet.is_locked(), fleet.drained()) == (dict.fromkeys(HOSTS, BAD), False, [])


def test_a_host_out_of_reach_is_left_out_where_policy_allows_and_p0_takes_it_along_when_it_is_back(
    fleet: Sandbox,
) -> None:
    machines.cut(fleet.layout, "api-3")
    try:
        with Load(fleet.layout, rate=30, services=["api"]) as load:
            code, output = roll_back(fleet, "P1", max_failed=34)
            served(load)
    finally:
        machines.mend(fleet.layout, "api-3")
    assert code == 0, output
    assert "left out: api-3, which gets no requests and keeps its release" in output
    assert any(line.startswith("DRAINED: api-3: ") for line in closing(output)), output
    assert fleet.live() == {"api-1": GOOD, "api-2": GOOD, "api-3": BAD}
    assert out_of_rotation(fleet) == ["api-3"]

    with Load(fleet.layout, rate=30, services=["api"]) as load:
        assert finishes(fleet, "P0")
        result = load.stop()
    assert result["kinds"]["maintenance"] > 0
    assert result["turning_points"]["errors_sent_after_page"] == {}
