"""rollback_branch on the sandbox's real repositories, whose history has a merge that was never live."""
from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.modules import rollback_branch as module
from ansible_collections.marketsage.rollback.sandbox import origins

ADMIN = ["src/components/admin/", "src/app/(admin)/"]
BRANCH = "rollback/frontend-20261124-0315"
Call = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("origin")
    origins.create(directory)
    return directory


@pytest.fixture
def frontend(origin: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(origin / "frontend.git", tmp_path / "frontend.git"))


def git(repository: Path, *arguments: str) -> str:
    return origins.git(repository, *arguments)


def commit_of(repository: Path, ref: str) -> str:
    return git(repository, "rev-parse", f"{ref}^{{commit}}")


def tree_of(repository: Path, commit: str, path: str = "") -> str:
    return git(repository, "rev-parse", f"{commit}:{path}")


def compose(call_module: Call, repository: Path, live: str, *targets: str, **more: Any) -> list[dict[str, Any]]:
    arguments = {"component": "admin-components", "paths": ADMIN, **more}
    read = call_module(
        module, repository=str(repository), live=commit_of(repository, live),
        targets=[commit_of(repository, target) for target in targets], **arguments,
    )  # fmt: skip
    assert "compositions" in read, read
    return read["compositions"]


def make(call_module: Call, repository: Path, run: Any, composed: dict[str, Any], live: str, **more: Any) -> Any:
    arguments = {"component": "admin-components", "paths": ADMIN, "target": composed["target"], **more}
    return call_module(
        module, state="present", repository=str(repository), live=commit_of(repository, live), run=run,
        **{"commit": composed["commit"], "branch": BRANCH, **arguments},
    )  # fmt: skip


def test_a_component_is_as_in_the_target_and_everything_else_as_in_what_is_live(
    call_module: Call, frontend: Path, run: Any
) -> None:
    (composed,) = compose(call_module, frontend, "v1.2.3-bad-components", "v1.1.0")
    assert composed["removed"] == ["src/components/admin/audit-trail.tsx"]
    assert composed["changed"] == ["src/app/(admin)/admin/page.tsx", "src/components/admin/dashboard.tsx"]

    made = make(call_module, frontend, run, composed, "v1.2.3-bad-components")

    assert (made["changed"], made["commit"]) == (True, composed["commit"])
    assert commit_of(frontend, BRANCH) == composed["commit"]
    for path in ("src/components/admin", "src/app/(admin)"):
        assert tree_of(frontend, BRANCH, path) == tree_of(frontend, "v1.1.0", path)
    others = git(frontend, "diff", "--name-only", "v1.2.3-bad-components", BRANCH).splitlines()
    assert others == sorted([*composed["changed"], *composed["removed"]])
    assert "newest first" in git(frontend, "show", f"{BRANCH}:src/app/(main)/page.tsx")


def test_working_it_out_writes_nothing_and_the_id_is_the_same_everywhere_and_always(
    call_module: Call, frontend: Path, origin: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(path for path in frontend.rglob("*"))
    (composed,) = compose(call_module, frontend, "v1.2.3-bad-components", "v1.1.0")
    assert sorted(path for path in frontend.rglob("*")) == before

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "somebody else")
    git(frontend, "config", "i18n.commitEncoding", "ISO-8859-1")
    git(frontend, "config", "commit.gpgSign", "true")
    assert compose(call_module, frontend, "v1.2.3-bad-components", "v1.1.0") == [composed]
    assert make(call_module, frontend, run, composed, "v1.2.3-bad-components")["commit"] == composed["commit"]
    assert compose(call_module, origin / "frontend.git", "v1.2.3-bad-components", "v1.1.0") == [composed]


def test_made_again_nothing_changes_and_another_commit_gets_another_name(
    call_module: Call, frontend: Path, run: Any
) -> None:
    (composed,) = compose(call_module, frontend, "v1.2.3-bad-components", "v1.1.0")
    looked = make(call_module, frontend, None, composed, "v1.2.3-bad-components", check=True)
    assert (looked["changed"], git(frontend, "branch", "--list", "rollback/*")) == (True, "")
    make(call_module, frontend, run, composed, "v1.2.3-bad-components")

    assert make(call_module, frontend, None, composed, "v1.2.3-bad-components")["changed"] is False
    other = commit_of(frontend, "v1.0.0")
    second = make(call_module, frontend, run, {**composed, "commit": other}, "v1.2.3-bad-components", paths=[])
    assert (second["branch"], commit_of(frontend, f"{BRANCH}-2")) == (f"{BRANCH}-2", other)
    assert commit_of(frontend, BRANCH) == composed["commit"]


def test_what_the_plan_does_not_name_is_not_committed(call_module: Call, frontend: Path, run: Any) -> None:
    (composed,) = compose(call_module, frontend, "v1.2.3-bad-components", "v1.1.0")
    held = make(call_module, frontend, run, {**composed, "commit": "f" * 40}, "v1.2.3-bad-components")
    assert held["exit_code"] == 20
    assert "but the plan says ffff" in held["msg"]
    assert git(frontend, "branch", "--list", "rollback/*") == ""


def test_a_component_that_is_the_same_makes_no_commit(call_module: Call, frontend: Path) -> None:
    same, other = compose(
        call_module, frontend, "v1.2.0-bad-admin", "v1.1.0", "v1.0.0", paths=["src/components/admin"]
    )
    assert (same["commit"], same["changed"]) == (None, [])
    assert other["removed"] == ["src/components/admin/newest-contacts.tsx"]


def test_a_target_that_the_repository_lacks_is_left_out(call_module: Call, frontend: Path) -> None:
    read = call_module(
        module, repository=str(frontend), live=commit_of(frontend, "v1.1.0"), targets=["e" * 40],
        component="admin-components", paths=ADMIN,
    )  # fmt: skip
    assert read["compositions"] == []


def test_a_branch_of_a_named_commit_is_that_commit(call_module: Call, frontend: Path, run: Any) -> None:
    commit = commit_of(frontend, "v1.0.0")
    made = call_module(
        module, state="present", repository=str(frontend), commit=commit, branch=BRANCH, run=run,
    )  # fmt: skip
    assert (made["changed"], commit_of(frontend, BRANCH)) == (True, commit)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"paths": ["../etc"]}, "paths: '../etc' is not a path"),
        ({"paths": ["--all"]}, "paths: '--all' is not a path"),
        ({"paths": [":(glob)**"]}, "paths: ':(glob)**' is not a path"),
        ({"live": "HEAD~1"}, "live: 'HEAD~1' is not a full commit"),
        ({"live": "e" * 40}, "live: "),
        ({"repository": "/nowhere"}, "repository: there is no bare git repository /nowhere"),
        ({"component": "-x"}, "component: '-x' is not a name"),
    ],
)
def test_bad_input_names_the_parameter(call_module: Call, frontend: Path, wrong: dict[str, Any], says: str) -> None:
    arguments = {
        "repository": str(frontend), "live": commit_of(frontend, "v1.1.0"), "targets": [],
        "component": "admin-components", "paths": ADMIN,
    }  # fmt: skip
    refused = call_module(module, **{**arguments, **wrong})
    assert refused["exit_code"] == 2
    assert refused["msg"].startswith(says)
