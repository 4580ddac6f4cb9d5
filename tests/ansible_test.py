"""Run ansible-test on a copy of what git tracks: it insists on a path that ends in the collection's name."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
# ansible-test wants pip's own installer from the network; Python carries one.
PIP_INSTALLER = "import ensurepip\nensurepip.bootstrap()\n"
# What each command does not look at: the rest of the repository is no part of the collection's tarball.
LEFT_OUT = {
    "sanity": ("sandbox/", "tests/", "benchmarks/", "molecule/", "wrapper/", "collections/"),
    "units": ("benchmarks/", "molecule/", "collections/", "tests/integration/", "tests/e2e/"),
}


def tracked(command: str) -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    return [name for name in listed if not name.startswith(LEFT_OUT[command]) and (REPOSITORY / name).is_file()]


def home() -> Path:
    """A home of ansible-test's own, kept, so that its virtual environments are made once."""
    directory = Path(os.environ.get("ROLLBACK_CACHE", tempfile.gettempdir()), "ansible-test")
    cache = directory / ".ansible/test/cache"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "get_pip_24_2.py").write_text(PIP_INSTALLER)
    return directory


def main() -> int:
    command, *arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory() as directory:
        collection = Path(directory, "ansible_collections/marketsage/rollback")
        for name in tracked(command):
            (collection / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, collection / name)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "HOME": str(home())}
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        words = ["ansible-test", command, "--local", "--python", version, "--color", "no", *arguments]
        return subprocess.run(words, cwd=collection, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
