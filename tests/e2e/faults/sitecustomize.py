"""Loaded by every Python of a run under test: counts journalled points, and kills the run at a chosen one."""
from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

_real_fsync = os.fsync
DIRECTORY = os.environ.get("ROLLBACK_FAULTS")


def reached(kind: str, name: str) -> None:
    """Write down that a point was reached; kill the run there if it is the chosen one."""
    directory = Path(str(DIRECTORY))
    with (directory / f"{kind}.log").open("a+") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        log.seek(0)
        number = len(log.read().splitlines()) + 1
        log.write(f"{name}\n")
    if os.environ.get("ROLLBACK_FAULT_AT") == f"{kind}:{number}":
        os.killpg(int((directory / "group").read_text()), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def fsync(handle: int) -> None:
    _real_fsync(handle)
    path = Path(f"/proc/self/fd/{handle}").readlink()
    if path.suffix == ".jsonl" and path.parent.name == "journal":
        reached("journal", f"{path.parents[1].name}: {path.read_text().splitlines()[-1]}")


if DIRECTORY:
    os.fsync = fsync
