"""Releases, built from their tags: each once per commit, in the cache every sandbox shares."""
from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ansible_collections.marketsage.rollback.sandbox import layout, node, origins

# Part of every release's place in the cache: raise it when releases are built in another way.
_RECIPE = 1
_KEPT_BETWEEN_BUILDS = {"node_modules", ".next"}


@dataclass(frozen=True)
class Release:
    """One build of a service. Nobody may change anything below its `path`."""

    service: str
    ref: str
    commit: str
    id: str
    path: Path


def release(origin: Path, service: str, ref: str) -> Release:
    """The release of a ref in the origin of a service below `origin`, built if need be; SandboxError when it cannot."""
    repository = origins.repository(origin, service)
    commit = origins.git(repository, "rev-parse", "--verify", "--end-of-options", f"{ref}^{{commit}}")
    path = layout.cache_directory() / "releases" / f"{service}-{commit[:12]}-{_RECIPE}"
    found = Release(service, ref, commit, commit[:12], path)
    node.make_once(path, lambda directory: _BUILDERS[service](repository, found, directory))
    return found


def prebuild(origin: Path, refs: dict[str, list[str]]) -> None:
    """Build several releases, the services side by side."""
    with ThreadPoolExecutor() as pool:
        for built in [pool.submit(_build_all, origin, service, wanted) for service, wanted in refs.items()]:
            built.result()


def _build_all(origin: Path, service: str, refs: list[str]) -> None:
    for ref in refs:
        release(origin, service, ref)


def _build_backend(repository: Path, wanted: Release, directory: Path) -> None:
    _export(repository, wanted.commit, directory)
    (directory / "node_modules").symlink_to(node.install(directory))
    node.run(["npm", "run", "build"], directory, node.environment())
    built_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    description = {"release": wanted.id, "commit": wanted.commit, "ref": wanted.ref, "built_at": built_at}
    (directory / "release.json").write_text(json.dumps(description, indent=2) + "\n")


def _build_frontend(repository: Path, wanted: Release, directory: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary)
        _export(repository, wanted.commit, source)
        workshop = _workshop(node.install(source))
        with node.locked(workshop):
            _replace_source(workshop, source)
            node.run(["npm", "run", "build"], workshop, node.environment())
            (workshop / ".next" / "standalone").rename(directory)
            shutil.copytree(workshop / ".next" / "static", directory / ".next" / "static")


def _workshop(packages: Path) -> Path:
    """The one directory where a frontend with these packages is built, so that Next.js finds its own cache again."""

    def equip(directory: Path) -> None:
        # Turbopack does not follow a link that leads out of the project.
        shutil.copytree(packages, directory / "node_modules", symlinks=True, copy_function=os.link)

    return node.make_once(layout.cache_directory() / "workshops" / packages.parent.name, equip)


def _replace_source(workshop: Path, source: Path) -> None:
    for entry in workshop.iterdir():
        if entry.is_dir() and entry.name not in _KEPT_BETWEEN_BUILDS:
            shutil.rmtree(entry)
        elif entry.is_file():
            entry.unlink()
    shutil.copytree(source, workshop, dirs_exist_ok=True)


def _export(repository: Path, commit: str, directory: Path) -> None:
    """Write the files of a commit."""
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        origins.git(repository, "archive", "--format=tar", f"--output={archive.name}", commit)
        shutil.unpack_archive(archive.name, directory)


_BUILDERS: dict[str, Callable[[Path, Release, Path], None]] = {"backend": _build_backend, "frontend": _build_frontend}
