# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A hybrid: the live commit with one component as an earlier release had it. Nobody has run it before.

Equal inputs give the same commit, whoever makes it and when: author, date and message follow from them. So a plan can
name it before it exists, and every host makes the same.
"""
from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import validate
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Refused
from ansible_collections.marketsage.rollback.plugins.module_utils.releases import Repository

_AUTHOR = "marketsage.rollback"
_EMAIL = "rollback@marketsage.invalid"
_NO_OBJECT = "0" * 40


@dataclass(frozen=True)
class Component:
    """A part of a service: its name, and the files and directories that it is, relative to the repository."""

    name: str
    paths: tuple[str, ...]

    @classmethod
    def of(cls, name: str, paths: list[str]) -> Component:
        if not paths:
            raise Refused(f"paths: component {name} has none, so there is nothing of it to roll back")
        trimmed = tuple(validate.relative_path(path.rstrip("/"), "paths") for path in paths)
        return cls(validate.identifier(name, "component"), trimmed)


@dataclass(frozen=True)
class Hybrid:
    """What comes of a live commit and a target: the commit (None where they do not differ), and the files concerned.

    `removed` were added since the target, `restored` were deleted since, `changed` are in both.
    """

    target: str
    commit: str | None
    changed: list[str]
    restored: list[str]
    removed: list[str]

    def shown(self) -> dict[str, Any]:
        return asdict(self)


def work_out(repository: Repository, live: str, target: str, component: Component) -> Hybrid:
    """The hybrid, without writing anything into the repository."""
    with _beside(repository) as variables:
        return _compose(repository, live, target, component, variables)


def commit(repository: Repository, live: str, target: str, component: Component) -> Hybrid:
    """The hybrid, its commit written into the repository."""
    with tempfile.TemporaryDirectory(prefix="rollback-") as directory:
        return _compose(repository, live, target, component, {"GIT_INDEX_FILE": os.path.join(directory, "index")})


@contextmanager
def _beside(repository: Repository) -> Iterator[dict[str, str]]:
    """Variables with which git keeps what it makes in a directory that goes away."""
    with tempfile.TemporaryDirectory(prefix="rollback-") as directory:
        yield {
            "GIT_INDEX_FILE": os.path.join(directory, "index"),
            "GIT_OBJECT_DIRECTORY": directory,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": os.path.join(repository.path, "objects"),
        }


def _compose(
    repository: Repository, live: str, target: str, component: Component, variables: dict[str, str]
) -> Hybrid:
    now, then = (_files(repository, commit, component.paths) for commit in (live, target))
    changed = sorted(path for path in now.keys() & then.keys() if now[path] != then[path])
    restored, removed = sorted(then.keys() - now.keys()), sorted(now.keys() - then.keys())
    made = None
    if changed or restored or removed:
        lines = [f"0 {_NO_OBJECT}\t{path}" for path in removed] + [
            f"{then[path]}\t{path}" for path in [*changed, *restored]
        ]
        repository.output("read-tree", live, extra=variables)
        repository.output("update-index", "-z", "--index-info", given="\0".join([*lines, ""]), extra=variables)
        tree = repository.output("write-tree", extra=variables).strip()
        made = _commit_tree(repository, tree, live, _message(live, target, component), variables)
    return Hybrid(target, made, changed, restored, removed)


def _files(repository: Repository, commit: str, paths: tuple[str, ...]) -> dict[str, str]:
    """Mode and object of each file that a commit has under the paths."""
    listed = repository.output("ls-tree", "-r", "-z", "--full-tree", commit, "--", *paths)
    files = {}
    for entry in listed.split("\0")[:-1]:
        (mode, _kind, blob), path = entry.partition("\t")[0].split(" "), entry.partition("\t")[2]
        files[path] = f"{mode} {blob}"
    return files


def _message(live: str, target: str, component: Component) -> str:
    paths = "\n".join(component.paths)
    title = f"Roll back {component.name} to {target[:12]}"
    return f"{title}\n\nEverything else is as in {live[:12]}. Taken back:\n{paths}\n"


def _commit_tree(repository: Repository, tree: str, live: str, message: str, variables: dict[str, str]) -> str:
    # The live commit's own time: a clock would make another commit on each host and at each resume.
    when = repository.output("show", "--no-patch", "--format=%ct", live).strip() + " +0000"
    who = {
        f"GIT_{role}_{name}": value
        for role in ("AUTHOR", "COMMITTER")
        for name, value in (("NAME", _AUTHOR), ("EMAIL", _EMAIL), ("DATE", when))
    }
    encoding = ("-c", "i18n.commitEncoding=UTF-8")
    arguments = (*encoding, "commit-tree", "--no-gpg-sign", "-p", live, tree)
    return repository.output(*arguments, given=message, extra={**variables, **who}).strip()
