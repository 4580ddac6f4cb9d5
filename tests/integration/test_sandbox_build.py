"""The sandbox's origins and builds: real git, npm, Prisma, TypeScript and Next.js; built once, then from the cache."""
from __future__ import annotations

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible_collections.marketsage.rollback.sandbox import build, node, origins
from ansible_collections.marketsage.rollback.sandbox.processes import SandboxError

SANDBOX = Path(build.__file__).parent
LAST_GOOD = "v1.1.0"
GOOD = ("v1.0.0", LAST_GOOD)
RELEASES = {
    service: [entry["ref"] for entry in origins.history(service)["commits"] if entry["ref"].startswith("v")]
    for service in origins.SERVICES
}
ALL = [(service, ref) for service, refs in RELEASES.items() for ref in refs]
FIXED = "v1.2.7-fixed"
BAD = [(service, ref) for service, ref in ALL if ref not in (*GOOD, FIXED)]


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("origin")
    origins.create(directory)
    return directory


@pytest.fixture(scope="session")
def releases(origin: Path) -> dict[tuple[str, str], build.Release]:
    build.prebuild(origin, RELEASES)
    return {(service, ref): build.release(origin, service, ref) for service, ref in ALL}


def commit(origin: Path, service: str, ref: str) -> str:
    return origins.git(origins.repository(origin, service), "rev-parse", f"{ref}^{{commit}}")


@pytest.mark.parametrize("service", origins.SERVICES)
def test_commit_ids_depend_on_nothing_of_the_machine(
    service: str, origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".gitconfig").write_text("[user]\nname = me\nemail = me@here\n[init]\ndefaultBranch = trunk\n")
    (tmp_path / "git").mkdir()
    (tmp_path / "git" / "ignore").write_text("*.ts\n")
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("GIT_AUTHOR_NAME", "me")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    other = tmp_path / "other"
    origins.create(other)
    ours, theirs = (origins.git(origins.repository(one, service), "for-each-ref") for one in (origin, other))
    assert ours == theirs
    assert len(ours.splitlines()) == len(RELEASES[service]) + len(origins.history(service)["branches"])


@pytest.mark.parametrize(("service", "ref"), BAD)
def test_the_commit_before_a_bad_release_is_not_the_last_good_one(service: str, ref: str, origin: Path) -> None:
    repository = origins.repository(origin, service)
    before = commit(origin, service, f"{ref}~1")
    tagged = origins.git(repository, "for-each-ref", "--format=%(*objectname)", "refs/tags").split()
    assert before not in tagged
    assert len(origins.git(repository, "rev-list", "--parents", "--max-count=1", before).split()) == 3, "a merge"
    good = commit(origin, service, LAST_GOOD)
    assert good in origins.git(repository, "rev-list", f"{ref}~1").split()


@pytest.mark.parametrize("ref", RELEASES["backend"])
def test_a_backend_release_has_what_a_host_needs(
    ref: str, origin: Path, releases: dict[tuple[str, str], build.Release]
) -> None:
    release = releases["backend", ref]
    assert release.commit == commit(origin, "backend", ref)
    description = json.loads((release.path / "release.json").read_text())
    assert description.pop("built_at").endswith("Z")
    assert description == {"release": release.commit[:12], "commit": release.commit, "ref": ref}
    for name in ("dist/main.js", "dist/db-verify.js", "prisma/schema.prisma", "package.json"):
        assert (release.path / name).is_file(), name
    assert (release.path / "node_modules").is_symlink()
    assert (release.path / "node_modules" / ".bin" / "prisma").exists()


@pytest.mark.parametrize("ref", RELEASES["frontend"])
def test_a_frontend_release_is_a_standalone_image(ref: str, releases: dict[tuple[str, str], build.Release]) -> None:
    image = releases["frontend", ref].path
    assert (image / "server.js").is_file()
    assert any((image / ".next" / "static").rglob("*.js"))
    assert not any(path.is_symlink() and not path.resolve().is_relative_to(image) for path in image.rglob("*"))


def test_nothing_half_built_is_left(releases: dict[tuple[str, str], build.Release]) -> None:
    assert not list(next(iter(releases.values())).path.parent.glob("*.partial"))


def test_a_ref_that_is_not_there_is_refused(origin: Path) -> None:
    with pytest.raises(SandboxError, match=r"v9\.9\.9"):
        build.release(origin, "backend", "v9.9.9")


@pytest.mark.parametrize("package", ["apps/backend", "apps/frontend", "tools"])
def test_lock_files_name_no_place_to_download_from(package: str) -> None:
    text = (SANDBOX / package / "package-lock.json").read_text()
    assert not [name for name, entry in json.loads(text)["packages"].items() if "resolved" in entry]
    assert "//registry" not in text


def prisma(release: build.Release, *arguments: str, database_url: str = "") -> subprocess.CompletedProcess[str]:
    variables = {**node.environment(), "DATABASE_URL": database_url}
    command = ["node_modules/.bin/prisma", *arguments]
    return subprocess.run(
        command,
        cwd=release.path,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def difference(before: build.Release, after: build.Release) -> list[str]:
    """What Prisma's own command line says must be done to a database to get from one release to the other."""
    files = [str(release.path / "prisma" / "schema.prisma") for release in (before, after)]
    arguments = ("--from-schema-datamodel", files[0], "--to-schema-datamodel", files[1], "--script")
    result = prisma(after, "migrate", "diff", *arguments)
    assert result.returncode == 0, result.stderr
    return [line.strip() for line in result.stdout.splitlines() if line and not line.startswith("--")]


def test_the_additive_release_only_adds(releases: dict[tuple[str, str], build.Release]) -> None:
    statements = difference(releases["backend", LAST_GOOD], releases["backend", "v1.2.3-additive"])
    assert 'ALTER TABLE "Contact" ADD COLUMN     "company" TEXT;' in statements
    assert 'CREATE TABLE "Campaign" (' in statements
    assert not any("DROP" in line for line in statements)


def test_the_destructive_release_takes_a_column_away(releases: dict[tuple[str, str], build.Release]) -> None:
    statements = difference(releases["backend", LAST_GOOD], releases["backend", "v1.2.4-destructive"])
    assert any('DROP COLUMN "name"' in line for line in statements)


def test_prisma_fails_when_there_is_no_database(releases: dict[tuple[str, str], build.Release]) -> None:
    result = prisma(
        releases["backend", LAST_GOOD], "migrate", "status", database_url="postgresql://nobody@127.0.0.1:1/none"
    )
    assert result.returncode == 1
    assert "P1001" in result.stderr


def test_two_who_make_the_same_thing_make_it_once(tmp_path: Path) -> None:
    made = []

    def make(directory: Path) -> None:
        assert not target.exists()
        made.append(directory)
        (directory / "file").write_text("whole")

    target = tmp_path / "thing"
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda _: (node.make_once(target, make) / "file").read_text(), range(8)))
    assert texts == ["whole"] * 8
    assert len(made) == 1


def test_what_a_killed_build_leaves_is_not_taken_for_a_build(tmp_path: Path) -> None:
    target = tmp_path / "thing"

    def die_halfway(directory: Path) -> None:
        (directory / "rubbish").touch()
        os._exit(9)

    if (child := os.fork()) == 0:
        node.make_once(target, die_halfway)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not target.exists()
    node.make_once(target, lambda directory: (directory / "file").touch())
    assert [path.name for path in target.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("command", "message"), [(["false"], "exited with 1"), (["sh", "-c", "echo why; exit 3"], "exited with 3\nwhy")]
)
def test_a_command_that_fails_says_why(command: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=message):
        node.run(command, tmp_path, dict(os.environ))
