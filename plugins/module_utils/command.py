# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Commands that the inventory configures: a list of words that no shell reads, in a group of processes of its own."""
from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Callable

from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Held

_OUTPUT_LINES = 10
_WATCH_SECONDS = 5


def kept_environment() -> dict[str, str]:
    """Those variables of this process that git and configured commands see."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "USER", "LANG") if name in os.environ}


def with_variables(variables: dict[str, Any]) -> dict[str, str]:
    """The environment of a configured command."""
    return {**kept_environment(), **{str(name): str(value) for name, value in variables.items()}}


def words(command: Any, name: str) -> list[str]:
    """A command from the inventory; BadInput where it is not a list of words."""
    if not isinstance(command, list) or not command or not all(isinstance(word, str) and word for word in command):
        raise BadInput(f"{name}: each command is a list of words, such as [npm, run, build]")
    return command


def execute(
    name: str,
    command: list[str],
    directory: str,
    environment: dict[str, str],
    deadline: Deadline,
    *,
    pass_fds: Sequence[int] = (),
    watch: Callable[[], None] | None = None,
    niceness: int = 0,
) -> tuple[int, str]:
    """Exit code and output; Held, with the parameter's name, where it cannot be run or does not end in time.

    `watch` is called every few seconds until it ends. A `niceness` above 0 leaves the processor to what serves users.
    """
    try:
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True, pass_fds=pass_fds,
        )  # fmt: skip
    except OSError as error:
        raise Held(f"{name}: {command[0]} cannot be run ({error.strerror})") from None
    if niceness:
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PGRP, process.pid, niceness)
    try:
        output = _output(process, deadline, watch)
    except subprocess.TimeoutExpired:
        limit = f"{deadline.seconds:g} s"
        raise Held(f"{name}: {command[0]} did not end within {limit} and was killed") from None
    finally:
        # Also what outlives its parent: nothing may write into a release that is finished or given up.
        _kill_group(process)
    return process.returncode, output


def _output(process: subprocess.Popen[str], deadline: Deadline, watch: Callable[[], None] | None) -> str:
    while watch and deadline.left() > _WATCH_SECONDS:
        try:
            return process.communicate(timeout=_WATCH_SECONDS)[0]
        except subprocess.TimeoutExpired:
            watch()
    return process.communicate(timeout=deadline.left())[0]


def tail(output: str) -> str:
    """The end of what a command printed, in one line."""
    return " | ".join(line.strip() for line in output.splitlines()[-_OUTPUT_LINES:] if line.strip())


def _kill_group(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
