"""Run ansible-test sanity on a copy of what git tracks: it insists on a path that ends in the collection's name."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LEFT_OUT = ("sandbox/", "tests/", "benchmarks/", "molecule/", "wrapper/", "collections/")


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    return [name for name in listed if not name.startswith(LEFT_OUT) and (REPOSITORY / name).is_file()]


def main() -> int:
    with tempfile.TemporaryDirectory() as directory:
        collection = Path(directory, "ansible_collections/marketsage/rollback")
        for name in tracked():
            (collection / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, collection / name)
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        command = ["ansible-test", "sanity", "--local", "--color", "no", *sys.argv[1:]]
        return subprocess.run(command, cwd=collection, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
