"""The one door to ansible-runner: a playbook in a process of its own, its events handed on as they come."""
from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ansible_runner
from ansible_collections.marketsage.rollback.wrapper.policy import COLLECTION

_KEPT_VARIABLES = (
    "HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "ROLLBACK_CACHE", "ROLLBACK_SANDBOX", "SSH_AUTH_SOCK", "SUDO_USER",
    "TERM", "TMPDIR", "TZ", "USER", "XDG_CACHE_HOME", "XDG_STATE_HOME",
)  # fmt: skip

Handler = Callable[[dict[str, Any]], None]


def as_variables_file(variables: dict[str, Any]) -> str:
    """Variables as a file for Ansible, whatever an operator wrote: no template, and a text of digits stays a text."""
    # JSON is YAML; a tag on each single text would have it read as a number or a time where it looks like one.
    return f"!unsafe {json.dumps(variables, ensure_ascii=False)}\n"


def environment() -> dict[str, str]:
    """What a playbook's process may see: an allow-list of the caller's variables, and Ansible's own settings."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    scripts = Path(sys.executable).parent
    return {
        **kept,
        "PATH": f"{scripts}{os.pathsep}{kept.get('PATH', os.defpath)}",
        "ANSIBLE_CONFIG": str(COLLECTION / "ansible.cfg") if (COLLECTION / "ansible.cfg").exists() else os.devnull,
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTION.parents[2]),
        "ANSIBLE_CALLBACKS_ENABLED": "marketsage.rollback.outcome",
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_HOST_PATTERN_MISMATCH": "ignore",
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_FORKS": "50",
        "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=300s -o ConnectTimeout=10 "
        "-o ServerAliveInterval=5 -o ServerAliveCountMax=3",
    }


def run_playbook(playbook: Path, inventory: Path, variables: dict[str, Any], check: bool, handler: Handler) -> int:
    """Run a playbook to its end and return its exit code; `handler` gets every event of ansible-runner."""
    allowed = environment()
    os.environ.clear()
    os.environ.update(allowed)
    private = Path(tempfile.mkdtemp(prefix="rollback-"))
    try:
        variables_file = private / "variables.yml"
        variables_file.write_text(as_variables_file(variables))
        runner = ansible_runner.run(
            private_data_dir=str(private),
            playbook=str(playbook),
            inventory=str(inventory),
            cmdline=f"-e @{variables_file}" + (" --check" if check else ""),
            event_handler=_keeping_nothing(handler),
            quiet=True,
            suppress_env_files=True,
            settings={"suppress_output_file": True, "idle_timeout": None},
        )
    finally:
        shutil.rmtree(private, ignore_errors=True)
    return int(runner.rc)


def _keeping_nothing(handler: Handler) -> Callable[[dict[str, Any]], bool]:
    def handle(event: dict[str, Any]) -> bool:
        handler(event)
        return False

    return handle
