"""The git origins of backend and frontend: their history is data in releases/, and its commit ids never differ."""
from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.marketsage.rollback.sandbox.processes import SandboxError

SERVICES = ("backend", "frontend")
_STACKS = ("monitoring",)
_SANDBOX = Path(__file__).parent
_RELEASES = _SANDBOX / "releases"
_GIT_SECONDS = 60
_AUTHOR = "MarketSage Developers"
_EMAIL = "developers@marketsage.com"


def create(directory: Path) -> None:
    """Make the bare origins of all services, and of what is rolled back beside them, in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda service: _create(repository(directory, service), service), (*SERVICES, *_STACKS)))


def repository(directory: Path, service: str) -> Path:
    """The origin of one service."""
    return directory / f"{service}.git"


def history(service: str) -> dict[str, Any]:
    """What releases/SERVICE.yml says: `commits`, oldest first, and `branches` by name."""
    data: dict[str, Any] = yaml.safe_load((_RELEASES / f"{service}.yml").read_text())
    return data


def git(repository: Path, *arguments: str, extra: dict[str, str] | None = None) -> str:
    """What git prints; SandboxError when it fails. The user's configuration has no influence."""
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        **(extra or {}),
    }
    command = ["git", f"--git-dir={repository}", "-c", f"core.excludesFile={os.devnull}", *arguments]
    result = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=_GIT_SECONDS, check=False)
    if result.returncode != 0:
        raise SandboxError(f"{' '.join(command)} exited with {result.returncode}\n{result.stderr}")
    return result.stdout.strip()


def _create(origin: Path, service: str) -> None:
    git(origin, "init", "--quiet", "--bare", "--initial-branch=main", str(origin))
    data = history(service)
    commits: dict[str, str] = {}
    for entry in data["commits"]:
        ref = entry["ref"]
        commits[ref] = _commit(origin, service, entry, commits)
        if ref.startswith("v"):
            message = ("--message", f"{service} {ref}")
            git(origin, "tag", "--annotate", *message, ref, commits[ref], extra=_identity(entry["date"]))
    for branch, ref in data["branches"].items():
        git(origin, "update-ref", f"refs/heads/{branch}", commits[ref])
    (origin / "index").unlink()


def _commit(origin: Path, service: str, entry: dict[str, Any], commits: dict[str, str]) -> str:
    parents = [commits[ref] for ref in entry.get("parents", [])]
    tree = _changed_tree(origin, entry["patches"], parents[0]) if parents else _first_tree(origin, service)
    options = [word for parent in parents for word in ("-p", parent)]
    return git(origin, "commit-tree", *options, "-m", entry["message"], tree, extra=_identity(entry["date"]))


def _first_tree(origin: Path, service: str) -> str:
    git(origin, f"--work-tree={_SANDBOX / 'apps' / service}", "-c", "core.fileMode=false", "add", "--all")
    return git(origin, "write-tree")


def _changed_tree(origin: Path, patches: list[str], parent: str) -> str:
    git(origin, "read-tree", parent)
    git(origin, "apply", "--cached", *(str(_RELEASES / "patches" / f"{name}.patch") for name in patches))
    return git(origin, "write-tree")


def _identity(day: date) -> dict[str, str]:
    when = f"{day.isoformat()}T12:00:00Z"
    author = {"GIT_AUTHOR_NAME": _AUTHOR, "GIT_AUTHOR_EMAIL": _EMAIL, "GIT_AUTHOR_DATE": when}
    committer = {"GIT_COMMITTER_NAME": _AUTHOR, "GIT_COMMITTER_EMAIL": _EMAIL, "GIT_COMMITTER_DATE": when}
    return {**author, **committer}
