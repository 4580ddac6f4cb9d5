"""A rollback on another node: ansible-runner transmits it, a worker there does it, the answer comes back."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.marketsage.rollback.sandbox.layout import HOSTS
from conftest import BIN, REPOSITORY, Sandbox

VARIABLES = {"severity": "P0", "reason": "health answers 500"}
NOT_THIS_CHECKOUT = {"ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "False"}
SETTINGS = {
    **NOT_THIS_CHECKOUT,
    "ANSIBLE_COLLECTIONS_PATH": "collections",
    "ANSIBLE_CALLBACKS_ENABLED": "marketsage.rollback.outcome",
    "ANSIBLE_HOST_KEY_CHECKING": "True",
}


def runner(sandbox: Sandbox, home: Path, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    home.mkdir(exist_ok=True)
    environment = {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "ROLLBACK_SANDBOX": str(sandbox.layout.directory),
    }
    return subprocess.run(
        ["ansible-runner", *arguments], cwd=home, env=environment, input=given, capture_output=True, timeout=180,
        check=False,
    )  # fmt: skip


@pytest.fixture
def private(sandbox: Sandbox, tmp_path: Path) -> Path:
    """What is sent: the collection, the inventory, what the operator said, and Ansible's settings."""
    directory = tmp_path / "sent"
    collections = directory / "project" / "collections"
    install = ["ansible-galaxy", "collection", "install", str(REPOSITORY), "-p", str(collections)]
    environment = sandbox.environment(**NOT_THIS_CHECKOUT, ANSIBLE_COLLECTIONS_PATH=str(collections))
    subprocess.run(install, env=environment, check=True, capture_output=True, timeout=120)
    shutil.copytree(REPOSITORY / "inventories" / "sandbox", directory / "inventory")
    (directory / "env").mkdir()
    (directory / "env" / "extravars").write_text(json.dumps(VARIABLES))
    (directory / "env" / "envvars").write_text(json.dumps(SETTINGS))
    return directory


def test_a_worker_that_was_sent_a_rollback_does_it(sandbox: Sandbox, private: Path, tmp_path: Path) -> None:
    sandbox.break_("backend-500")
    playbook = ("-p", "marketsage.rollback.backend")
    sent = runner(sandbox, tmp_path / "here", "transmit", str(private), *playbook)
    assert sent.returncode == 0, sent.stderr
    done = runner(sandbox, tmp_path / "there", "worker", given=sent.stdout)
    assert done.returncode == 0, done.stdout
    shown = runner(sandbox, tmp_path / "here", "process", str(private), given=done.stdout)
    assert shown.returncode == 0, shown.stdout.decode()
    assert "the gate passed and traffic is on" in shown.stdout.decode()
    assert (sandbox.live(), sandbox.answer().status_code) == (dict.fromkeys(HOSTS, "v1.1.0"), 200)
