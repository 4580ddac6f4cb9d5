"""release on real files, with history that is damaged and with git and build commands that lie."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.marketsage.rollback.plugins.module_utils import marks
from ansible_collections.marketsage.rollback.plugins.module_utils.releases import Releases
from ansible_collections.marketsage.rollback.plugins.modules import release as module

A, B, C = ("a" * 40, "b" * 40, "c" * 40)
RUN_ID = "20261124T031500Z-backend-3f9a"


class Host:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "releases").mkdir()
        (root / "repository.git").mkdir()

    def add(self, commit: str, **about: Any) -> None:
        path = self.root / "releases" / commit[:12]
        (path / "dist").mkdir(parents=True)
        (path / "dist" / "main.js").touch()
        said = {"release": commit[:12], "commit": commit, "ref": f"v-{commit[0]}", "built_at": "2026-11-01T00:00:00Z"}
        (path / "release.json").write_text(json.dumps({**said, **about}))

    def deploy(self, commit: str, second: int) -> None:
        self.point_at(commit[:12])
        line = {
            "time": f"2026-11-01T00:00:{second:02}Z", "release": commit[:12], "commit": commit, "ref": f"v-{commit[0]}",
            "action": "deploy", "by": "ci",
        }
        with self.revisions.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def point_at(self, target: str) -> None:
        (self.root / "current").unlink(missing_ok=True)
        (self.root / "current").symlink_to(f"releases/{target}")

    @property
    def revisions(self) -> Path:
        return self.root / "revisions.jsonl"

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.revisions.read_text().splitlines()]

    def live(self) -> str:
        return (self.root / "current").readlink().name


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    for commit in (A, B, C):
        host.add(commit)
    for second, commit in enumerate((A, B, A, C)):
        host.deploy(commit, second)
    return host


@pytest.fixture
def release(host: Host, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    def run_module(**arguments: Any) -> dict[str, Any]:
        if arguments.get("state") != "marked":
            arguments = {"root": str(host.root), "required": ["dist/main.js"], **arguments}
        arguments.setdefault("run", {"id": RUN_ID, "fence": 1, "state_dir": str(host.root / "state")})
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        return dict(json.loads(capsys.readouterr().out))

    return run_module


def test_candidates_were_live_before_newest_first_and_each_commit_once(host: Host, release: Any) -> None:
    (host.root / "releases" / B[:12] / "dist" / "main.js").unlink()

    read = release(run=None)

    assert read["live"] == {"release": C[:12], "commit": C, "ref": "v-c", "since": "2026-11-01T00:00:03Z"}
    assert [(one["commit"], one["live_at"][-3:], one["built"]) for one in read["candidates"]] == [
        (A, "02Z", True), (B, "01Z", False),
    ]
    assert [one["release"][0] for one in read["history"]] == ["c", "a", "b", "a"]
    assert read["problems"] == []
    assert [one["problem"] is None for one in read["releases"]] == [True, False, True]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "revisions.jsonl is missing"),
        ("{not json\n", "line 1 is damaged"),
        ('{"time": "x"}\n', "line 1 is damaged"),
        ("[]\n", "line 1 is damaged"),
        ('{"torn": ', "last line is torn"),
    ],
)
def test_a_history_that_cannot_be_read_is_said_and_not_guessed(
    host: Host, release: Any, text: str | None, says: str
) -> None:
    host.revisions.unlink()
    if text is not None:
        host.revisions.write_text(text)

    read = release()

    assert says in read["problems"][0]
    assert read["candidates"] == []
    assert read["live"]["since"] is None


def test_a_record_whose_id_is_not_its_commit_is_damaged(host: Host, release: Any) -> None:
    host.revisions.write_text(host.revisions.read_text().replace(B, "e" * 40))

    read = release()

    assert read["problems"] == ["revisions.jsonl: line 2 is damaged"]
    assert [one["commit"] for one in read["candidates"]] == [A]


def test_a_link_that_the_record_does_not_know_of_is_said(host: Host, release: Any) -> None:
    host.point_at(B[:12])

    read = release()

    assert "says cccccccccccc is live, but current leads to bbbbbbbbbbbb" in read["problems"][0]
    assert read["live"]["since"] is None


def test_a_link_out_of_the_releases_is_no_live_release(host: Host, release: Any) -> None:
    host.point_at("../elsewhere")

    assert release()["live"] is None


def test_switches_and_records_once(host: Host, release: Any) -> None:
    done = release(state="live", release=A[:12])

    assert (done["changed"], done["switched"], done["recorded"]) == (True, True, True)
    assert (host.root / "current").readlink() == Path(f"releases/{A[:12]}")
    assert {**host.lines()[-1], "time": ""} == {
        "time": "", "release": A[:12], "commit": A, "ref": "v-a", "action": "rollback", "by": RUN_ID,
    }
    assert done["live"]["since"] == host.lines()[-1]["time"]
    assert release(state="live", release=A[:12], run=None)["changed"] is False
    assert len(host.lines()) == 5


def test_killed_between_link_and_record_only_the_record_is_made_up_for(host: Host, release: Any) -> None:
    host.point_at(A[:12])
    with host.revisions.open("a") as file:
        file.write('{"time": "2026')

    done = release(state="live", release=A[:12])

    assert (done["switched"], done["recorded"]) == (False, True)
    assert [line["by"] for line in host.lines()] == ["ci", "ci", "ci", "ci", RUN_ID]


def test_killed_while_the_link_was_made_it_is_made_again(host: Host, release: Any) -> None:
    (host.root / ".current.new").symlink_to("releases/half")

    release(state="live", release=A[:12])

    assert host.live() == A[:12]
    assert not (host.root / ".current.new").is_symlink()


def test_check_mode_switches_nothing(host: Host, release: Any) -> None:
    said = release(state="live", release=A[:12], _ansible_check_mode=True, run=None)

    assert (said["changed"], said["diff"]) == (True, {"before": {"live": C[:12]}, "after": {"live": A[:12]}})
    assert (host.live(), len(host.lines())) == (C[:12], 4)


@pytest.mark.parametrize("spoil", ["release.json", "dist/main.js"])
def test_an_incomplete_release_is_refused(host: Host, release: Any, spoil: str) -> None:
    (host.root / "releases" / A[:12] / spoil).unlink()

    refused = release(state="live", release=A[:12])

    assert refused["exit_code"] == 3
    assert spoil in refused["msg"]
    assert host.live() == C[:12]
    assert not (host.root / "state").exists()


def test_a_release_that_says_it_is_another_is_refused(host: Host, release: Any) -> None:
    host.add("d" * 40, release=A[:12])

    assert "says it is aaaaaaaaaaaa" in release(state="live", release="d" * 12)["msg"]


def test_current_that_is_a_directory_is_refused(host: Host, release: Any) -> None:
    (host.root / "current").unlink()
    (host.root / "current").mkdir()

    assert "is not a link" in release(state="live", release=A[:12])["msg"]


def test_a_switch_that_did_not_happen_is_not_believed(
    host: Host, release: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Releases, "switch", lambda self, release: None)

    failed = release(state="live", release=A[:12])

    assert failed["exit_code"] == 20
    assert "read back" in failed["msg"]


def test_a_change_without_a_run_is_refused(host: Host, release: Any) -> None:
    assert release(state="live", release=A[:12], run=None)["exit_code"] == 3
    assert host.live() == C[:12]


def lying_git(host: Host, script: str) -> dict[str, str]:
    (host.root / "bin").mkdir()
    (host.root / "bin" / "git").write_text(f"#!/bin/sh\n{script}\n")
    (host.root / "bin" / "git").chmod(0o755)
    return {"PATH": f"{host.root}/bin:/usr/bin:/bin"}


@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        ("echo HEAD", 2, "commit: "),
        ("exit 0", 2, "cannot be found"),
        (f'case "$*" in *rev-parse*) echo {"d" * 40};; esac', 20, "git made no worktree"),
        (f'case "$*" in *rev-parse*) echo {"d" * 40};; *) echo no space >&2; exit 1;; esac', 20, "no space"),
    ],
)
def test_a_git_that_lies_is_not_believed(host: Host, release: Any, script: str, code: int, says: str) -> None:
    failed = release(state="built", commit="d" * 40, repository=str(host.root / "repository.git"),
                     environment=lying_git(host, script))

    assert failed["exit_code"] == code
    assert says in failed["msg"]
    assert sorted(path.name for path in (host.root / "releases").iterdir()) == [A[:12], B[:12], C[:12]]


def mark(release: Any, host: Host, **more: Any) -> dict[str, Any]:
    arguments = {"service": "backend", "commit": A, "mark": "bad", "by": "dana", "reason": "health 500", **more}
    return dict(release(state="marked", marks_file=str(host.root / "marks.json"), run=None, **arguments))


def test_marks_once(host: Host, release: Any) -> None:
    assert mark(release, host, _ansible_check_mode=True)["changed"] is True
    assert not (host.root / "marks.json").exists()

    first = mark(release, host)
    again = mark(release, host, reason="another reason")
    other = mark(release, host, mark="good")

    assert (first["changed"], again["changed"], other["changed"]) == (True, False, True)
    assert again["mark"] == first["mark"]
    assert marks.load(str(host.root / "marks.json"))["backend"][A]["mark"] == "good"


@pytest.mark.parametrize("text", ["{", "[]", '{"backend": []}', '{"backend": {"a": {"mark": "so-so"}}}'])
def test_damaged_marks_are_unknown_and_stay_as_they_are(host: Host, release: Any, text: str) -> None:
    (host.root / "marks.json").write_text(text)

    failed = mark(release, host)

    assert failed["exit_code"] == 30
    assert (host.root / "marks.json").read_text() == text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"root": "/nowhere"}, "root: there is no directory /nowhere"),
        ({"root": "relative"}, "root: "),
        ({"required": ["../x"]}, "required: '../x' is not a path inside a release"),
        ({"state": "live", "release": "HEAD~1"}, "release: 'HEAD~1' is not a release id"),
        ({"state": "built", "ref": "HEAD~1"}, "ref: 'HEAD~1' is not a release id, commit, tag or branch"),
        ({"state": "built", "ref": "--upload-pack=x"}, "ref: "),
        ({"state": "built", "commit": "abc"}, "commit: 'abc' is not a full commit"),
        ({"state": "built", "commit": A, "build": [[]]}, "build: each command is a list of words"),
        ({"state": "built", "commit": A, "timeout": 0}, "timeout: 0 is not"),
        ({"state": "marked", "reason": "a\nb"}, "reason: say in one line"),
        ({"state": "marked", "by": "-x"}, "by: '-x' is not a name"),
        ({"state": "marked", "marks_file": "/nowhere/marks.json"}, "marks_file: there is no directory"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    host: Host, release: Any, arguments: dict[str, Any], says: str
) -> None:
    base: dict[str, Any] = {}
    if arguments.get("state") == "built":
        base = {"repository": str(host.root / "repository.git")}
    if arguments.get("state") == "marked":
        marked = {"service": "backend", "commit": A, "mark": "bad", "by": "dana", "reason": "health 500"}
        base = {"marks_file": str(host.root / "marks.json"), **marked}
    before = sorted(host.root.rglob("*"))

    failed = release(**{**base, **arguments})

    assert failed["exit_code"] == 2
    assert failed["msg"].startswith(says)
    assert "\n" not in failed["msg"]
    assert sorted(host.root.rglob("*")) == before


def test_each_state_names_the_options_it_needs(release: Any) -> None:
    assert "release" in release(state="live")["msg"]
    assert "repository" in release(state="built", ref="v1")["msg"]
    assert "commit, ref" in release(state="built", repository="/x")["msg"]
    assert "marks_file" in release(state="marked", run=None)["msg"]


def test_a_secret_that_others_can_read_or_that_is_not_there_is_told_and_fails_nothing(host: Host, release: Any) -> None:
    private, public = host.root / "private", host.root / "public"
    for path, mode in ((private, 0o600), (public, 0o644)):
        path.write_text("s3cret")
        path.chmod(mode)
    paths = {"private": str(private), "public": str(public), "missing": str(host.root / "missing")}
    told = release(secret_files=paths)["host"]["unreadable"]
    assert [line.split(":")[0] for line in told] == ["secret_files.public", "secret_files.missing"]
    assert "s3cret" not in " ".join(told)


def test_the_documented_keys_are_the_returned_ones(host: Host, release: Any) -> None:
    yaml = pytest.importorskip("yaml")
    documented = yaml.safe_load(module.RETURN)
    returned = {"listed": release(), "live": release(state="live", release=A[:12]), "marked": mark(release, host)}

    for state, result in returned.items():
        wanted = {name for name, value in documented.items() if f"O(state={state})" in value["returned"]}
        assert set(result) - {"changed", "diff", "invocation"} == wanted
