# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The releases of one service on one host: what is built, what is live, and what was live when."""
from __future__ import annotations

import filecmp
import json
import os
import re
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import validate
from ansible_collections.marketsage.rollback.plugins.module_utils.command import execute, tail
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Held, Refused
from ansible_collections.marketsage.rollback.plugins.module_utils.files import fsync_directory, write_atomically
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import canonical, now

_COMMIT = re.compile(r"[0-9a-f]{40}")
ID_LENGTH = 12
# A build runs beside what serves users.
_NICENESS = 10
_LOG_LENGTH = 50
_RECORD_KEYS = ("time", "release", "commit", "ref", "action", "by")
_ABOUT_KEYS = ("release", "commit", "ref", "built_at")


def wanted_release(current: str | None, release: str | None) -> str:
    """The directory that the link `current` leads to, or `release`; with both given they must be the same."""
    resolved = [_directory(path, name) for path, name in ((release, "release"), (current, "current")) if path]
    if len(set(resolved)) > 1:
        raise Refused(f"current: {current} leads to {resolved[1]}, not to {resolved[0]}; switch it first")
    return resolved[0]


def working_directory(pid: int) -> str | None:
    """Where a process runs, which is the release that it runs; None where there is none or it cannot be read."""
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None


def _directory(path: str, name: str) -> str:
    resolved = os.path.realpath(validate.absolute_path(path, name))
    if not os.path.isdir(resolved):
        raise BadInput(f"{name}: {path} leads to no directory")
    return resolved


@dataclass(frozen=True)
class History:
    """What was live, newest first, and what of the record cannot be read: with any of that it may be incomplete."""

    entries: list[dict[str, Any]]
    problems: list[str]


class Releases:
    """A directory with `releases/<id>/`, the link `current` and the record `revisions.jsonl`."""

    def __init__(self, root: str, required: list[str]) -> None:
        self.root = root
        self._required = required

    def path(self, release: str) -> str:
        return os.path.join(self.root, "releases", release)

    def problem(self, release: str) -> str | None:
        """Why a release cannot run; None where it is complete."""
        return self.problem_in(self.path(release), release)

    def problem_in(self, path: str, release: str) -> str | None:
        """Why what is in a directory is not this release; None where it is."""
        if not os.path.isdir(path):
            return f"{path} does not exist"
        about = _about(path)
        if about is None:
            return f"{path}/release.json is missing or damaged"
        if about["release"] != release or not about["commit"].startswith(release):
            return f"{path}/release.json says it is {about['release']}"
        missing = [name for name in self._required if not os.path.exists(os.path.join(path, name))]
        return f"{path} has no {', '.join(missing)}" if missing else None

    def built(self) -> list[dict[str, Any]]:
        """What release.json says of each directory under releases/, and what is wrong with it if anything is."""
        unknown = {"commit": None, "ref": None, "built_at": None}
        return [
            {**unknown, **(_about(self.path(name)) or {}), "release": name, "problem": self.problem(name)}
            for name in sorted(os.listdir(os.path.join(self.root, "releases")))
            if not name.startswith(".")
        ]

    def live(self) -> str | None:
        """The id that `current` leads to; None where it is not a link to one of the releases."""
        try:
            target = os.path.join(self.root, os.readlink(self._link))
        except OSError:
            return None
        directory, name = os.path.split(os.path.normpath(target))
        return name if os.path.realpath(directory) == os.path.realpath(os.path.join(self.root, "releases")) else None

    def about_live(self, history: History) -> dict[str, Any] | None:
        """Id, commit, ref and since when; null for what is not known."""
        release = self.live()
        if release is None:
            return None
        about = _about(self.path(release)) or {}
        newest = history.entries[0] if history.entries else {}
        since = newest["time"] if newest.get("release") == release else None
        return {"release": release, "commit": about.get("commit"), "ref": about.get("ref"), "since": since}

    def history(self) -> History:
        """The record of what was live."""
        try:
            with open(self._record) as file:
                lines = file.read().split("\n")
        except FileNotFoundError:
            return History([], ["revisions.jsonl is missing: what was live before is not known"])
        problems = [] if lines[-1] == "" else ["revisions.jsonl: the last line is torn"]
        entries: list[dict[str, Any]] = []
        for number, line in enumerate(lines[:-1], start=1):
            entry = _entry(line)
            if entry:
                entries.insert(0, entry)
            else:
                problems.append(f"revisions.jsonl: line {number} is damaged")
        return History(entries, problems + self._contradiction(entries))

    def candidates(self, history: History) -> list[dict[str, Any]]:
        """What was live before and is not now: distinct commits, the one that was live last first."""
        live = self.live()
        latest: dict[str, dict[str, Any]] = {}
        for entry in history.entries:
            if entry["release"] != live:
                latest.setdefault(entry["commit"], entry)
        return [
            {
                "release": entry["release"], "commit": entry["commit"], "ref": entry["ref"],
                "live_at": entry["time"], "built": self.problem(entry["release"]) is None,
            }
            for entry in latest.values()
        ]

    def with_same_file(self, name: str, tree: str) -> str | None:
        """The directory of a complete release whose file `name` is to the byte the one in a working tree."""
        wanted = os.path.join(tree, name)
        paths = [self.path(one["release"]) for one in self.built() if one["problem"] is None]
        candidates = (path for path in paths if os.path.isfile(os.path.join(path, name)))
        same = (path for path in candidates if filecmp.cmp(os.path.join(path, name), wanted, shallow=False))
        return next(same, None) if os.path.isfile(wanted) else None

    def newest_record(self) -> str | None:
        """The id that the record says is live."""
        entries = self.history().entries
        return entries[0]["release"] if entries else None

    def check_switchable(self, release: str) -> None:
        """Refused where the release is incomplete or `current` is something else than a link."""
        problem = self.problem(release)
        if problem:
            raise Refused(f"release: {problem}", "Build it first, or choose another release.")
        if os.path.lexists(self._link) and not os.path.islink(self._link):
            raise Refused(f"root: {self._link} is not a link; it must be one to a directory under releases/")

    def switch(self, release: str) -> None:
        """Point `current` at the release in one step; a kill leaves the old link or the new one."""
        temporary = os.path.join(self.root, ".current.new")
        if os.path.lexists(temporary):
            os.unlink(temporary)
        os.symlink(os.path.join("releases", release), temporary)
        os.rename(temporary, self._link)
        fsync_directory(self.root)

    def record(self, release: str, by: str) -> None:
        """Add to the record that a rollback made this release live. A line torn by a kill is dropped."""
        about = _about(self.path(release)) or {}
        entry = {
            "time": now(), "release": release, "commit": about.get("commit"), "ref": about.get("ref"),
            "action": "rollback", "by": by,
        }
        text, mode = "", 0o644
        if os.path.exists(self._record):
            mode = stat.S_IMODE(os.stat(self._record).st_mode)
            with open(self._record) as file:
                text = file.read()
        whole = text[: text.rfind("\n") + 1]
        write_atomically(self._record, f"{whole}{canonical(entry)}\n", mode)

    @property
    def _link(self) -> str:
        return os.path.join(self.root, "current")

    @property
    def _record(self) -> str:
        return os.path.join(self.root, "revisions.jsonl")

    def _contradiction(self, entries: list[dict[str, Any]]) -> list[str]:
        live = self.live()
        if not entries or entries[0]["release"] == live:
            return []
        return [f"revisions.jsonl says {entries[0]['release']} is live, but current leads to {live or 'no release'}"]


def _about(path: str) -> dict[str, Any] | None:
    """A release's own release.json; None where it does not say what it must."""
    try:
        with open(os.path.join(path, "release.json")) as file:
            about = json.load(file)
    except (OSError, ValueError):
        return None
    strings = isinstance(about, dict) and all(isinstance(about.get(key), str) for key in _ABOUT_KEYS)
    return about if strings and _COMMIT.fullmatch(about["commit"]) else None


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in _RECORD_KEYS):
        return None
    named = _COMMIT.fullmatch(entry["commit"]) and entry["commit"][:ID_LENGTH] == entry["release"]
    return entry if named else None


class Repository:
    """The bare clone that releases are built from. Nothing an operator gives is ever an option or an expression."""

    def __init__(self, path: str, environment: dict[str, str], deadline: Deadline) -> None:
        self.path = path
        self._deadline = deadline
        self._environment = environment

    def resolve(self, ref: str, name: str) -> str:
        """The commit that a ref means now; `name` is the parameter that gave it."""
        found = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        commit = found.stdout.strip()
        if found.returncode != 0 or not _COMMIT.fullmatch(commit):
            why = " ".join(found.stderr.split()) or "no such commit, tag or branch"
            raise BadInput(f"{name}: {ref!r} cannot be found in {self.path} ({why[:200]})")
        return commit

    def has(self, commit: str) -> bool:
        """Whether it holds a commit."""
        return self._git("cat-file", "-e", f"{commit}^{{commit}}").returncode == 0

    def name(self, commit: str) -> str:
        """The first tag of a commit, else the branch that a rollback made of it, else the commit itself."""
        format_ = "--format=%(refname:short)"
        for kind in ("refs/tags", "refs/heads/rollback"):
            names = self._git("for-each-ref", f"--points-at={commit}", format_, kind).stdout
            if names:
                return names.split("\n")[0]
        return commit

    def log(self, since: str, until: str) -> list[dict[str, str]] | None:
        """The commits of `until` that `since` does not have, newest first: commit, author, subject.

        At most 50; None where git cannot tell.
        """
        options = [f"--max-count={_LOG_LENGTH}", "--format=%H%x00%an%x00%s"]
        try:
            printed = self.output("log", *options, "--end-of-options", f"{since}..{until}", "--")
        except Held:
            return None
        lines = [line.split("\0") for line in printed.split("\n") if line]
        return [{"commit": commit, "author": author, "subject": subject} for commit, author, subject in lines]

    def check_out(self, commit: str, tree: str) -> None:
        """A fresh working tree with nothing of git left in it. Hooks do not run: they are not the release's."""
        added = self._git("-c", "core.hooksPath=/dev/null", "worktree", "add", "--quiet", "--detach", tree, commit)
        if added.returncode != 0 or not os.path.exists(os.path.join(tree, ".git")):
            raise Held(f"git made no worktree of {commit} from {self.path}: {tail(added.stderr)}")
        os.unlink(os.path.join(tree, ".git"))
        self.prune()

    def prune(self) -> None:
        """Forget worktrees whose directory is gone."""
        self._git("worktree", "prune")

    def branch(self, name: str) -> str | None:
        """The commit of a branch; None where there is no such branch."""
        found = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"refs/heads/{name}^{{commit}}")
        return found.stdout.strip() or None

    def make_branch(self, name: str, commit: str) -> None:
        """A new branch; Held where it exists by now."""
        self.output("update-ref", f"refs/heads/{name}", commit, "0" * 40)

    def output(self, *arguments: str, given: str = "", extra: dict[str, str] | None = None) -> str:
        """What git prints when it reads `given`, with more variables; Held where it fails."""
        done = self._git(*arguments, given=given, extra=extra)
        if done.returncode != 0:
            raise Held(f"git failed in {self.path}: {tail(done.stderr)}")
        return done.stdout

    def _git(
        self, *arguments: str, given: str = "", extra: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        argv = ["git", f"--git-dir={self.path}", *arguments]
        try:
            return subprocess.run(
                argv, cwd="/", env={**self._environment, **(extra or {})}, input=given, capture_output=True,
                encoding="utf-8", errors="surrogateescape", timeout=max(self._deadline.left(), 1), check=False,
            )
        except subprocess.TimeoutExpired:
            raise Held(f"git {arguments[0]} did not end within {self._deadline.seconds:g} s") from None
        except OSError as error:
            raise Held(f"git cannot be run ({error.strerror})") from None


@dataclass(frozen=True)
class Dependencies:
    """What a lock file names, in a directory beside it, and the command that installs it there."""

    lock: str
    directory: str
    install: list[str]


@dataclass(frozen=True)
class Recipe:
    """How a working tree becomes a release: commands run in it, one after the other, all within the deadline."""

    commands: list[list[str]]
    environment: dict[str, str]
    deadline: Deadline
    dependencies: Dependencies | None

    def make(self, tree: str, releases: Releases) -> None:
        if self.dependencies:
            self._provide(self.dependencies, tree, releases)
        for command in self.commands:
            self._execute(command, tree)

    def _provide(self, dependencies: Dependencies, tree: str, releases: Releases) -> None:
        """The dependencies of a release with the very same lock file, else newly installed ones."""
        donor = releases.with_same_file(dependencies.lock, tree)
        if donor is None:
            self._execute(dependencies.install, tree)
            return
        source, target = (os.path.join(place, dependencies.directory) for place in (donor, tree))
        if os.path.islink(source):
            os.symlink(os.readlink(source), target)
        else:
            shutil.copytree(source, target, symlinks=True)

    def _execute(self, command: list[str], tree: str) -> None:
        code, output = execute("build", command, tree, self.environment, self.deadline, niceness=_NICENESS)
        if code != 0:
            raise Held(f"build: {command[0]} ended with {code}: {tail(output)}")


def build(releases: Releases, repository: Repository, commit: str, recipe: Recipe) -> None:
    """Build a commit beside the releases and move it among them when it is whole; a failure leaves nothing."""
    release = commit[:ID_LENGTH]
    _remove_leftovers(releases.root)
    repository.prune()
    workshop = tempfile.mkdtemp(prefix=".build-", dir=releases.root)
    try:
        tree = os.path.join(workshop, release)
        repository.check_out(commit, tree)
        recipe.make(tree, releases)
        about = {"release": release, "commit": commit, "ref": repository.name(commit), "built_at": now()}
        write_atomically(os.path.join(tree, "release.json"), canonical(about) + "\n", 0o644)
        _publish(releases, tree, release)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _publish(releases: Releases, tree: str, release: str) -> None:
    problem = releases.problem_in(tree, release)
    if problem:
        raise Held(f"build: every command succeeded, but {problem}")
    # The name must not reach the disk before the contents do.
    os.sync()
    os.rename(tree, releases.path(release))
    fsync_directory(os.path.dirname(releases.path(release)))


def _remove_leftovers(root: str) -> None:
    """Clear away what a killed build left."""
    for name in os.listdir(root):
        if name.startswith(".build-"):
            shutil.rmtree(os.path.join(root, name))
