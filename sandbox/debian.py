"""Programs that only Debian packages: the installed one, or unpacked without root into the cache sandboxes share."""
from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

from ansible_collections.marketsage.rollback.sandbox import layout, node

_SECONDS = 300
_VERSION = 1


@cache
def program(package: str, name: str) -> Path | None:
    """A package's program; None on a system that neither has it installed nor can download Debian's."""
    if installed := shutil.which(name):
        return Path(installed)
    if not shutil.which("apt-get"):
        return None
    target = layout.cache_directory() / "debian" / f"{package}-{_VERSION}"
    try:
        node.make_once(target, lambda directory: _unpack(package, directory))
    except subprocess.SubprocessError:
        return None
    return target / "usr" / "bin" / name


def _unpack(package: str, directory: Path) -> None:
    """Download with lists of our own, so that nothing of the system is read or changed that needs root."""
    apt = directory / "apt"
    for part in ("state/lists/partial", "cache/archives/partial"):
        (apt / part).mkdir(parents=True)
    options = [f"Dir::State={apt}/state", f"Dir::Cache={apt}/cache", "Debug::NoLocking=1", "APT::Sandbox::User="]
    command = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    for arguments in (["update"], ["download", package]):
        subprocess.run([*command, *arguments], cwd=apt, check=True, capture_output=True, timeout=_SECONDS)
    (archive,) = apt.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", archive, directory], check=True, capture_output=True, timeout=_SECONDS)
    shutil.rmtree(apt)
