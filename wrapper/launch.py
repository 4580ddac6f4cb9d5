"""The one door to ansible-runner: a playbook in a process of its own, its events handed on as they come."""
from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from ansible_collections.marketsage.rollback.wrapper.policy import COLLECTION

_KEPT_VARIABLES = (
    "HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "ROLLBACK_CACHE", "ROLLBACK_SANDBOX", "ROLLBACK_STOP_FILE",
    "SSH_AUTH_SOCK", "SUDO_USER", "TERM", "TMPDIR", "TZ", "USER", "XDG_CACHE_HOME", "XDG_STATE_HOME",
)  # fmt: skip

# What is in a driver's spool.
REQUEST, EVENTS, STOP = "request.json", "events.jsonl", "stop"
_PAUSE = 0.05

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
        "ANSIBLE_CONFIG": str(COLLECTION / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTION.parents[2]),
        "ANSIBLE_HOST_KEY_CHECKING": "True",
    }


def run_playbook(playbook: Path, inventory: Path, variables: dict[str, Any], check: bool, handler: Handler) -> int:
    """Run a playbook to its end and return its exit code; `handler` gets every event of ansible-runner."""
    import ansible_runner  # noqa: PLC0415  here alone, for it takes longer to load than everything else

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


class Driven:
    """A playbook in the hands of a driver, a process in a session of its own that outlives this one."""

    def __init__(self, request: dict[str, Any]) -> None:
        spool = Path(tempfile.mkdtemp(prefix="rollback-run-"))
        self._stop = spool / STOP
        self.asked_to_stop = False
        (spool / REQUEST).write_text(json.dumps(request))
        (spool / EVENTS).touch()
        self._events = (spool / EVENTS).open()
        command = [sys.executable, "-m", f"{__package__}.driver", str(spool)]
        self._process = subprocess.Popen(
            command, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=(spool / "errors").open("w"), start_new_session=True,
        )  # fmt: skip

    def next(self) -> dict[str, Any] | None:
        """The next happening, waited for; None when there will be no more."""
        happening = next_line(self._events)
        while happening is None and self._process.poll() is None:
            time.sleep(_PAUSE)
            happening = next_line(self._events)
        return happening or next_line(self._events)

    def ask_to_stop(self) -> None:
        """At the next boundary at which no change is under way."""
        self.asked_to_stop = True
        self._stop.touch()

    def kill(self) -> None:
        """At once; what is under way on a host may still finish by itself."""
        self._process.send_signal(signal.SIGTERM)


def next_line(events: TextIO) -> dict[str, Any] | None:
    """The next whole line of a file that is still written; None where there is none yet."""
    at = events.tell()
    line = events.readline()
    if not line.endswith("\n"):
        events.seek(at)
        return None
    happening: dict[str, Any] = json.loads(line)
    return happening


def told(directory: Path) -> Iterator[dict[str, Any]]:
    """What a run's record tells since it was last driven, and then what happens, while its driver lives."""
    with (directory / EVENTS).open() as events:
        driver = _skip_to_newest(events)
        while True:
            happening = next_line(events)
            if happening:
                yield happening
                if happening["event"] == "ended":
                    return
            elif not Path(f"/proc/{driver}").exists():
                return
            else:
                time.sleep(_PAUSE)


def _skip_to_newest(events: TextIO) -> int:
    """Go to where the newest driver began to tell; its process id."""
    begun, driver, at = 0, 0, events.tell()
    while (happening := next_line(events)) is not None:
        if happening["event"] == "started":
            begun, driver = at, happening["driver"]
        at = events.tell()
    events.seek(begun)
    return driver
