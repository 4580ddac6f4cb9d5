# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files that survive a crash: written whole or not at all, and secrets read only from private ones."""
from __future__ import annotations

import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Refused


def write_atomically(path: str, text: str, mode: int = 0o600) -> None:
    """Replace `path` by `text`: temporary file, fsync, rename, fsync of the directory."""
    directory = os.path.dirname(path)
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=".tmp-")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    fsync_directory(directory)


def fsync_directory(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(path: str, default: Any) -> Any:
    """The JSON in `path`, or `default` where there is no such file."""
    try:
        with open(path) as file:
            return json.load(file)
    except FileNotFoundError:
        return default


def read_secret(path: str, name: str) -> str:
    """A secret from a file that only its owner can read; `name` is the parameter that gave the path."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise BadInput(f"{name}: {path} cannot be read ({error.strerror})") from None
    with os.fdopen(handle) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid != os.geteuid():
            raise BadInput(f"{name}: {path} must be a plain file of this user with mode 0600")
        secret = file.read().strip()
    if not secret:
        raise BadInput(f"{name}: {path} is empty")
    return secret


def unreadable(paths: dict[str, str], name: str) -> list[str]:
    """Why those secrets that cannot be read cannot, a line for each; `name` is the parameter that gave the paths."""
    said = []
    for secret, path in paths.items():
        try:
            read_secret(path, f"{name}.{secret}")
        except BadInput as error:
            said.append(str(error))
    return said


@contextmanager
def locked(path: str, seconds: float) -> Iterator[None]:
    """Hold the kernel's lock on `path`; it is freed by a kill. Refused when not free within `seconds`."""
    with open(path, "a") as file:
        for _attempt in Deadline(seconds).attempts(0.05):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                continue
        else:
            raise Refused(f"{path} is still held by a process that is changing something; nothing was done here")
        yield
