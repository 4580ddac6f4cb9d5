"""The process that carries a playbook out: in a session of its own, so that it goes on when the terminal is gone.

It writes happenings, one line of JSON each, to its spool and, once the run is opened, to the run's record, where
`rollback attach` finds them from any other terminal.
"""
from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, TextIO

from ansible_collections.marketsage.rollback.wrapper import advice, launch
from ansible_collections.marketsage.rollback.wrapper.progress import Happening, Progress


class Log:
    """Where happenings go; a full disk must not end a run."""

    def __init__(self, spool: Path) -> None:
        self._told: list[str] = []
        self._files: list[TextIO] = [(spool / launch.EVENTS).open("a")]

    def tell(self, happening: Happening) -> None:
        line = json.dumps(happening) + "\n"
        self._told.append(line)
        if happening["event"] == "opened":
            self._keep_in(Path(happening["directory"]))
        else:
            self._write(self._files, [line])

    def _keep_in(self, directory: Path) -> None:
        """From here on into the run's record too, with all that was told before."""
        self._write(self._files, self._told[-1:])
        try:
            record = os.open(directory / launch.EVENTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError:
            return
        self._files.append(os.fdopen(record, "a"))
        self._write(self._files[-1:], self._told)

    @staticmethod
    def _write(files: list[TextIO], lines: list[str]) -> None:
        for file in files:
            try:
                file.writelines(lines)
                file.flush()
            except OSError:
                continue


def drive(spool: Path) -> int:
    """Carry out what is asked for in the spool; its exit code."""
    request: dict[str, Any] = json.loads((spool / launch.REQUEST).read_text())
    advice.names(request["named"])
    progress, log = Progress(request["steps"]), Log(spool)
    log.tell(progress.started(request["title"], request["response_time"]))

    def handle(event: dict[str, Any]) -> None:
        for happening in progress.take(event):
            log.tell(happening)

    os.environ["ROLLBACK_STOP_FILE"] = str(spool / launch.STOP)
    code = launch.run_playbook(
        Path(request["playbook"]), Path(request["inventory"]), request["variables"], request["check"], handle
    )
    log.tell(progress.ended(code))
    return code


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    try:
        sys.exit(drive(directory))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
