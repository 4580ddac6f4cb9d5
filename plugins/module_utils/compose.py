# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A compose project in a git checkout: which revisions were live, what a change of revision touches, and the change.

Never "down": what has not changed goes on without a gap. Works with docker compose, docker-compose and podman-compose.
"""
from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils.command import execute, tail
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Held, RollbackError
from ansible_collections.marketsage.rollback.plugins.module_utils.library import library
from ansible_collections.marketsage.rollback.plugins.module_utils.releases import ID_LENGTH, Repository

_PINNED = "@sha256:"


@dataclass(frozen=True)
class Project:
    """A checkout, the words that start compose, and files beside the checkout's own that belong to this host alone."""

    directory: str
    name: str
    command: list[str]
    environment: dict[str, str]
    local_files: list[str]
    deadline: Deadline

    @property
    def repository(self) -> Repository:
        return Repository(os.path.join(self.directory, ".git"), self.environment, self.deadline)

    def compose(self, directory: str, *arguments: str) -> str:
        """What compose prints; Held where it fails."""
        return self.run("compose_command", [*self.command, "-p", self.name, *arguments], directory)

    def run(self, name: str, command: list[str], directory: str) -> str:
        code, output = execute(name, command, directory, self.environment, self.deadline)
        if code != 0:
            raise Held(f"{name}: {command[0]} ended with {code}: {tail(output)}")
        return output

    @contextmanager
    def tree(self, commit: str) -> Iterator[str]:
        """A fresh working tree of a commit, with the host's own files; gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="rollback-") as directory:
            tree = os.path.join(directory, "tree")
            self.repository.check_out(commit, tree)
            for name in self.local_files:
                source, target = (os.path.join(place, name) for place in (self.directory, tree))
                (shutil.copytree if os.path.isdir(source) else shutil.copy)(source, target)
            yield tree

    def services(self, tree: str) -> dict[str, Any]:
        """The definition of each service as compose reads it in a working tree."""
        shown = self.compose(tree, "config").replace(tree, self.directory)
        parsed = library("yaml", "reading what compose shows").safe_load(shown)
        services: dict[str, Any] = parsed["services"]
        return services


def head(project: Project) -> str:
    """The commit that is checked out."""
    return project.repository.resolve("HEAD", "directory")


def revisions(project: Project) -> list[dict[str, Any]]:
    """What was checked out here, newest first and each commit once, from the reflog: release, commit, ref, live_at."""
    repository = project.repository
    found: dict[str, dict[str, Any]] = {}
    for line in repository.output("log", "--walk-reflogs", "--date=unix", "--format=%H %gd", "HEAD").splitlines():
        commit, _space, selector = line.partition(" ")
        seconds = int(selector.partition("@{")[2].rstrip("}"))
        at = datetime.fromtimestamp(seconds, timezone.utc).isoformat().replace("+00:00", "Z")
        about = {"release": commit[:ID_LENGTH], "commit": commit, "ref": repository.name(commit)}
        found.setdefault(commit, {**about, "live_at": at, "built": True})
    return list(found.values())


def changed_by_hand(project: Project) -> list[str]:
    """Tracked files of the checkout that are not as committed."""
    worktree = f"--work-tree={project.directory}"
    listed = project.repository.output(worktree, "status", "--porcelain", "--untracked-files=no")
    return [line[3:] for line in listed.splitlines()]


def check_out(project: Project, commit: str) -> None:
    """Make a commit the checkout's; hooks do not run."""
    worktree = f"--work-tree={project.directory}"
    project.repository.output("-c", "core.hooksPath=/dev/null", worktree, "checkout", "--quiet", "--detach", commit)


def unpinned(services: dict[str, Any]) -> list[str]:
    """Services whose image can become another one overnight."""
    return [name for name, service in services.items() if _PINNED not in str(service.get("image", ""))]


@dataclass(frozen=True)
class Touched:
    """What a change of revision does to each service: made anew, told to read its files again, started or removed.

    `other_image` are those of the first whose image is another one.
    """

    recreated: list[str]
    reloaded: list[str]
    removed: list[str]
    other_image: list[str]


def touched(project: Project, live: str, target: str, known: dict[str, dict[str, Any]]) -> Touched:
    """Compare two revisions: definitions as compose reads them, files as git does. `known` is told per service."""
    with project.tree(live) as old_tree, project.tree(target) as new_tree:
        old, new = project.services(old_tree), project.services(new_tree)
    recreated = [name for name in new if new[name] != old.get(name)]
    files = project.repository.output("diff", "--name-only", "-z", live, target).split("\0")
    reads = {name: known.get(name, {}).get("files") or [] for name in new if name not in recreated}
    stale = [name for name, paths in reads.items() if _any_below(files, paths)]
    reloaded = [name for name in stale if known[name].get("reload_url")]
    recreated += [name for name in stale if name not in reloaded]
    images = [name for name in recreated if old.get(name, {}).get("image") not in (None, new[name].get("image"))]
    return Touched(recreated, reloaded, [name for name in old if name not in new], images)


def _any_below(files: list[str], paths: list[str]) -> bool:
    return any(file == path or file.startswith(f"{path.rstrip('/')}/") for file in files for path in paths)


def newest_file(directory: str, paths: list[str]) -> float:
    """When the newest file below some paths of a checkout was written; 0 where there is none."""
    roots = [os.path.join(directory, path) for path in paths]
    inside = [os.path.join(at, name) for root in roots for at, _names, names in os.walk(root) for name in names]
    return max((os.path.getmtime(path) for path in [*inside, *roots] if os.path.isfile(path)), default=0.0)


def keep_data(source: str, target: str) -> dict[str, int]:
    """Copy a service's data aside while it is stopped: number of files and bytes, read back from the copy."""
    unfinished = f"{target}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
    shutil.copytree(source, unfinished, symlinks=True)
    copied, there = _measured(unfinished), _measured(source)
    if copied != there:
        raise RollbackError(f"{target}: {copied} was copied of {there} in {source}")
    os.sync()
    os.rename(unfinished, target)
    return copied


def _measured(directory: str) -> dict[str, int]:
    files = [os.path.join(at, name) for at, _directories, names in os.walk(directory) for name in names]
    return {"files": len(files), "bytes": sum(os.lstat(path).st_size for path in files)}
