"""The processes of a sandbox: started detached, known by a mark in their environment, ended and proven ended."""
from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import psutil
from ansible_collections.marketsage.rollback.sandbox.layout import Layout

# Every process of a sandbox, and whatever those start, has this in its environment.
MARK = "MARKETSAGE_SANDBOX_PROCESS"
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME", "XDG_STATE_HOME", "ROLLBACK_CACHE")
_LOG_LINES = 15
_START_SECONDS = 20


class SandboxError(Exception):
    """What went wrong, and the last lines of the log that tells more where there is one."""

    exit_code = 1

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(f"{message}\n{_last_lines(log)}" if log else message)


class BadInput(SandboxError):
    """A parameter cannot be used; the message names it. Nothing was changed."""

    exit_code = 2


def _last_lines(log: Path) -> str:
    text = log.read_text(errors="replace") if log.is_file() else ""
    lines = [f"  | {line}" for line in text.splitlines()[-_LOG_LINES:]]
    return "\n".join([f"  the end of {log}:", *(lines or ["  | (empty)"])])


def environment(layout: Layout, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a process of this sandbox gets: little of the caller's environment, so that no secret leaks into it."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**inherited, **(extra or {}), MARK: str(layout.directory)}


def start(
    layout: Layout, name: str, command: list[str], ready: Callable[[], bool], extra: Mapping[str, str] | None = None
) -> None:
    """Start a part that stays and wait until it is ready; output in logs/NAME.log, process id in pids/NAME."""
    with (layout.logs / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=layout.directory,
            env=environment(layout, extra),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (layout.pids / name).write_text(str(process.pid))
    wait_until(layout, name, ready, _START_SECONDS, lambda: process.poll() is None)


def run(
    layout: Layout,
    name: str,
    command: list[str],
    *,
    seconds: float,
    extra: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run a command to its end, its output in logs/NAME.log; SandboxError unless it exits 0 within `seconds`."""
    path = layout.logs / f"{name}.log"
    with path.open("ab") as log:
        try:
            code = subprocess.run(
                command,
                cwd=cwd or layout.directory,
                env=environment(layout, extra),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=seconds,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            raise SandboxError(f"{name}: {command[0]} has not ended within {seconds:g} s", path) from None
    if code != 0:
        raise SandboxError(f"{name}: {' '.join(command)} exited with {code}", path)


def find(layout: Layout, name: str) -> psutil.Process | None:
    """The living process of a part, by the process id written when it was started."""
    try:
        process = psutil.Process(int((layout.pids / name).read_text()))
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None
    return process if _is_ours(process, layout) else None


def wait_until(
    layout: Layout, name: str, ready: Callable[[], bool], seconds: float, alive: Callable[[], bool] | None = None
) -> None:
    """Wait for `ready`; SandboxError when the deadline passes, or at once when the part is no longer `alive`."""
    log = layout.logs / f"{name}.log"
    end = time.monotonic() + seconds
    while not ready():
        if alive and not alive():
            raise SandboxError(f"{name}: the process has ended", log)
        if time.monotonic() > end:
            raise SandboxError(f"{name}: not ready after {seconds:g} s", log)
        time.sleep(0.02)


def stop(layout: Layout, name: str, how: signal.Signals = signal.SIGTERM, seconds: float = 5) -> None:
    """End one part and its children: the part by a signal, and by SIGKILL what that leaves."""
    if process := find(layout, name):
        family = [process, *process.children(recursive=True)]
        _signal([process], how)
        _wait_for_end([process], seconds)
        _signal(family, signal.SIGKILL)
        _wait_for_end(family, seconds)
    (layout.pids / name).unlink(missing_ok=True)


def end(processes: Iterable[psutil.Process], seconds: float) -> None:
    """End processes: SIGTERM, and SIGKILL for those still there after `seconds`."""
    processes = list(processes)
    _signal(processes, signal.SIGTERM)
    stubborn = _wait_for_end(processes, seconds)
    _signal(stubborn, signal.SIGKILL)
    _wait_for_end(stubborn, seconds)


def survivors(layout: Layout) -> list[psutil.Process]:
    """Every living process of this sandbox, with descendants that have hidden their environment."""
    strangers = {process for process in psutil.process_iter(["ppid"]) if process.pid != os.getpid()}
    family: set[psutil.Process] = set()
    found = {process for process in strangers if _is_ours(process, layout)}
    while found:
        family |= found
        strangers -= found
        parents = {process.pid for process in found}
        found = {process for process in strangers if process.info["ppid"] in parents}
    return sorted(family, key=lambda process: process.pid)


def _wait_for_end(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those of `processes` that still live after `seconds`, or none as soon as none does."""
    deadline = time.monotonic() + seconds
    while (living := [process for process in processes if _lives(process)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return living


def _lives(process: psutil.Process) -> bool:
    # What has ended stays in the list as a zombie until its parent, often not ours, takes notice.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_ours(process: psutil.Process, layout: Layout) -> bool:
    try:
        return process.environ().get(MARK) == str(layout.directory)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _signal(processes: Iterable[psutil.Process], how: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(how)
        except psutil.NoSuchProcess:
            continue
