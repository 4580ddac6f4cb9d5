"""release on a real git repository, with real builds, some of which are killed."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.marketsage.rollback.tests.helpers import eventually

RUNNER = """
import json, sys
from ansible.module_utils.testing import patch_module_args
from ansible_collections.marketsage.rollback.plugins.modules import release
with patch_module_args(json.load(sys.stdin)):
    release.main()
"""
BUILD = [["sh", "-c", "mkdir dist && cp main.txt dist/main.js"]]


class Host:
    """A backend host in miniature, with a bare clone of a repository of two commits."""

    def __init__(self, root: Path) -> None:
        self.root = root / "host"
        (self.root / "releases").mkdir(parents=True)
        self.repository = self.root / "repository.git"
        source = root / "source"
        self.git("init", "--quiet", "--initial-branch=main", str(source))
        self.source = source
        self.first = self._commit(source, "first")
        self.git("-C", str(source), "tag", "v1.0.0")
        self.second = self._commit(source, "second")
        self.git("clone", "--quiet", "--bare", str(source), str(self.repository))
        hook = self.repository / "hooks" / "post-checkout"
        hook.write_text(f"#!/bin/sh\ntouch {root}/hook-ran\n")
        hook.chmod(0o755)

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
        done = subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, message: str, main: str) -> str:
        """One more commit, in the clone too."""
        (self.source / "main.txt").write_text(main)
        self.git("-C", str(self.source), "commit", "--quiet", "--all", "-m", message)
        self.git(f"--git-dir={self.repository}", "fetch", "--quiet", str(self.source), "main:main")
        return self.git("-C", str(self.source), "rev-parse", "HEAD")

    def _commit(self, source: Path, text: str) -> str:
        (source / "main.txt").write_text(text)
        self.git("-C", str(source), "add", "main.txt")
        self.git("-C", str(source), "commit", "--quiet", "-m", text)
        return self.git("-C", str(source), "rev-parse", "HEAD")

    def begin(self, **more: Any) -> subprocess.Popen[str]:
        arguments = {
            "root": str(self.root), "required": ["dist/main.js"],
            "run": {"id": "20261124T031500Z-backend-3f9a", "fence": 1, "state_dir": str(self.root / "state")}, **more,
        }
        process = subprocess.Popen(
            [sys.executable, "-c", RUNNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env={**os.environ, "PYTHONPATH": "collections"},
        )
        assert process.stdin
        process.stdin.write(json.dumps(arguments))
        process.stdin.close()
        process.stdin = None
        return process

    def release(self, **more: Any) -> dict[str, Any]:
        out, err = self.begin(**more).communicate(timeout=60)
        assert out, err
        return dict(json.loads(out))

    def build(self, **more: Any) -> dict[str, Any]:
        return self.release(state="built", repository=str(self.repository), **{"build": BUILD, **more})

    def entries(self) -> list[str]:
        """What is in the host's directory and among its releases."""
        return sorted(path.name for folder in (self.root, self.root / "releases") for path in folder.iterdir())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize("ref", ["v1.0.0", "first[:12]", "first"])
def test_builds_what_a_ref_means(host: Host, ref: str) -> None:
    ref = {"first": host.first, "first[:12]": host.first[:12]}.get(ref, ref)

    done = host.build(ref=ref)

    tree = host.root / "releases" / host.first[:12]
    assert (done["changed"], done["commit"], done["release"]) == (True, host.first, host.first[:12])
    assert (tree / "dist" / "main.js").read_text() == "first"
    about = json.loads((tree / "release.json").read_text())
    assert (about["release"], about["commit"], about["ref"]) == (host.first[:12], host.first, "v1.0.0")
    assert not (tree / ".git").exists()
    assert not (host.repository / "worktrees").exists()
    assert not (host.root.parent / "hook-ran").exists()
    assert host.entries() == sorted(["releases", "repository.git", "state", host.first[:12]])
    assert host.build(ref=ref, run=None)["changed"] is False


NPM = {"lock": "main.txt", "directory": "modules", "install": ["sh", "-c", "mkdir modules; echo new > modules/made"]}


def test_dependencies_come_from_a_release_with_the_same_lock_file_alone(host: Host) -> None:
    host.build(commit=host.first, dependencies=NPM)
    made = host.root / "releases" / host.first[:12] / "modules" / "made"
    assert made.read_text() == "new\n"
    made.write_text("kept")
    again = host.commit("again", main="first")
    host.build(commit=again, dependencies=NPM)
    host.build(commit=host.second, dependencies=NPM)

    releases = [host.root / "releases" / commit[:12] / "modules" / "made" for commit in (again, host.second)]
    assert [path.read_text() for path in releases] == ["kept", "new\n"]
    assert releases[0].stat().st_ino != made.stat().st_ino


def test_a_build_leaves_the_processor_to_others(host: Host) -> None:
    host.build(commit=host.first, build=[*BUILD, ["sh", "-c", "sleep 0.2; nice > dist/niceness"]])
    assert int((host.root / "releases" / host.first[:12] / "dist" / "niceness").read_text()) >= 10


def test_a_built_release_can_be_made_live_and_is_then_listed(host: Host) -> None:
    for commit in (host.first, host.second):
        host.build(commit=commit)
        host.release(state="live", release=commit[:12])

    read = host.release()

    assert (read["live"]["commit"], read["live"]["ref"]) == (host.second, host.second)
    assert [(one["commit"], one["ref"], one["built"]) for one in read["candidates"]] == [(host.first, "v1.0.0", True)]
    assert (host.root / "current" / "dist" / "main.js").read_text() == "second"


def test_what_a_candidate_leaves_behind_is_told_as_far_as_git_knows(host: Host) -> None:
    host.build(commit=host.first)
    host.release(state="live", release=host.first[:12])
    third = host.commit("third, with\ttabs", "third")
    host.build(commit=third)
    host.release(state="live", release=third[:12])

    (candidate,) = host.release(repository=str(host.repository))["candidates"]
    (unknown,) = host.release(repository=str(host.root / "nowhere.git"))["candidates"]

    left = [(one["commit"], one["author"], one["subject"]) for one in candidate["leaves"]]
    assert left == [(third, "t", "third, with\ttabs"), (host.second, "t", "second")]
    assert unknown["leaves"] is None


def test_check_mode_resolves_and_builds_nothing(host: Host) -> None:
    said = host.build(ref="main", _ansible_check_mode=True, run=None)

    assert (said["changed"], said["commit"]) == (True, host.second)
    assert host.entries() == ["releases", "repository.git"]


@pytest.mark.parametrize("ref", ["v9.9.9", "0123456789ab"])
def test_a_ref_that_is_not_there_is_bad_input(host: Host, ref: str) -> None:
    failed = host.build(ref=ref)

    assert failed["exit_code"] == 2
    assert failed["msg"].startswith(f"ref: '{ref}' cannot be found")


@pytest.mark.parametrize(
    ("commands", "says"),
    [
        ([["sh", "-c", "echo no such module; exit 4"]], "sh ended with 4: no such module"),
        ([["sh", "-c", "kill -9 $$"]], "sh ended with -9"),
        ([["no-such-program"]], "no-such-program cannot be run"),
        ([["sleep", "30"]], "did not end within 2 s"),
        ([["true"]], "has no dist/main.js"),
        ([["echo", "$(mkdir dist)", ";", "mkdir", "dist"]], "has no dist/main.js"),
    ],
)
def test_a_build_that_fails_leaves_nothing(host: Host, commands: list[list[str]], says: str) -> None:
    failed = host.build(commit=host.first, build=commands, timeout=2)

    assert failed["exit_code"] == 20
    assert says in failed["msg"]
    assert host.entries() == ["releases", "repository.git", "state"]
    assert host.build(commit=host.first)["changed"] is True


def test_a_killed_build_is_never_seen_and_the_next_clears_it_away(host: Host) -> None:
    building = host.begin(
        state="built", repository=str(host.repository), commit=host.first,
        build=[["sh", "-c", "touch begun; sleep 3; touch ended"]],
    )
    eventually(lambda: any(host.root.glob(".build-*/*/begun")))
    building.kill()
    building.communicate()
    assert [one["release"] for one in host.release()["releases"]] == []

    done = host.build(commit=host.first)

    assert done["changed"] is True
    assert host.entries() == sorted(["releases", "repository.git", "state", host.first[:12]])


def test_what_a_build_leaves_running_is_ended(host: Host) -> None:
    host.build(commit=host.first, build=[*BUILD, ["sh", "-c", "(sleep 1; touch late) >/dev/null 2>&1 &"]])
    time.sleep(1.2)

    assert not (host.root / "releases" / host.first[:12] / "late").exists()


def test_a_damaged_build_is_refused_and_not_touched(host: Host) -> None:
    host.build(commit=host.first)
    tree = host.root / "releases" / host.first[:12]
    (tree / "release.json").unlink()

    refused = host.build(commit=host.first)

    assert refused["exit_code"] == 3
    assert (tree / "dist" / "main.js").exists()


@pytest.mark.parametrize("moment", ["release_live", "switch", "record"])
def test_killed_at_any_moment_of_the_switch_the_next_run_finishes(host: Host, moment: str) -> None:
    host.build(commit=host.first)
    host.build(commit=host.second)
    host.release(state="live", release=host.second[:12])

    _killed_after(host, moment)
    assert (host.root / "current").readlink().name in (host.first[:12], host.second[:12])
    host.release(state="live", release=host.first[:12])

    lines = [json.loads(line) for line in (host.root / "revisions.jsonl").read_text().splitlines()]
    assert [line["commit"] for line in lines] == [host.second, host.first]
    assert (host.root / "current").readlink() == Path("releases") / host.first[:12]


def _killed_after(host: Host, moment: str) -> None:
    """Run the module in a process that kills itself right after the intent, the switch or the record."""
    where = {
        "release_live": ("journal.Journal", "append"),
        "switch": ("releases.Releases", "switch"),
        "record": ("releases.Releases", "record"),
    }[moment]
    owner, method = where
    file, name = owner.split(".")
    sabotage = f"""
import os
from ansible_collections.marketsage.rollback.plugins.module_utils.{file} import {name}
whole = {name}.{method}
def then_die(*arguments):
    whole(*arguments)
    os.kill(os.getpid(), 9)
{name}.{method} = then_die
"""
    arguments = {
        "root": str(host.root), "state": "live", "release": host.first[:12],
        "run": {"id": "20261124T031500Z-backend-3f9a", "fence": 1, "state_dir": str(host.root / "state")},
    }
    done = subprocess.run(
        [sys.executable, "-c", sabotage + RUNNER], input=json.dumps(arguments), capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": "collections"}, check=False, timeout=60,
    )
    assert done.returncode == -9, done.stderr
