"""The traps of the written runbook: its own shell lines on the real parts do not do what their comments say; ours do.

Those that other tests show:

    FLUSHDB also wipes queues, caches        test_sessions: a flush takes them, and has to name how many; one user's
    and revoked tokens                       sessions end and every other key stays
    pm2 keeps serving the old release        integration/test_pm2: a frozen path outlives pm2's restart, and is cured
    after the link moved                     by delete and start
    docker-compose down blinds the operator  test_monitoring: down ends what was not even changed, ours leaves it alone
"""
from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.marketsage.rollback.plugins.modules import postgres_fence, rollback_branch
from ansible_collections.marketsage.rollback.sandbox import build, origins, servers, state
from ansible_collections.marketsage.rollback.sandbox.layout import HOSTS, Layout
from conftest import Sandbox
from psycopg import sql
from test_procedures import SAID, plan_in

PRISMA = "npx prisma"
Call = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def incident(running: Sandbox) -> Sandbox:
    """v1.2.4-destructive is live: its health check answers 500, and it has renamed a column that v1.1.0 reads."""
    running.reset()
    running.break_("migration-destructive")
    return running


@pytest.fixture(scope="module")
def healed(incident: Sandbox) -> Sandbox:
    """What our way makes of the incident."""
    done = incident.playbook("backend", *SAID)
    assert done.returncode == 0, done.stdout + done.stderr
    return incident


def shell(line: str, directory: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line of the runbook as it stands there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        ["bash", "-c", line], cwd=directory, env={**environment, **variables}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def on_host(layout: Layout, database: str = "marketsage") -> dict[str, str]:
    """The variables with which a backend host runs Prisma and the API."""
    host = layout.host(HOSTS[0])
    loaded = f"console.log(JSON.stringify(require({json.dumps(str(host / 'ecosystem.config.cjs'))}).apps[0].env))"
    application = json.loads(subprocess.check_output([str(host / "bin" / "node"), "-e", loaded], text=True))
    url = layout.database_url.removesuffix("marketsage") + f"{database}?schema=public"
    path = os.pathsep.join([str(host / "bin"), (layout.directory / "postgres_bin").read_text(), os.environ["PATH"]])
    engine = str(host / "bin" / "schema-engine")
    engines = {"PRISMA_SCHEMA_ENGINE_BINARY": engine, "PRISMA_QUERY_ENGINE_LIBRARY": engine, "CHECKPOINT_DISABLE": "1"}
    return {**application, **engines, "PATH": path, "DATABASE_URL": url}


def release_of(layout: Layout, ref: str) -> Path:
    return layout.host(HOSTS[0]) / "releases" / build.release(layout.origin, "backend", ref).id


@pytest.fixture
def scratch(running: Sandbox) -> Iterator[str]:
    """An empty database that the application's role owns, beside the sandbox's own."""
    name = "marketsage_trap"
    with servers.maintenance_connection(running.layout) as server:
        server.execute(sql.SQL("CREATE DATABASE {} OWNER marketsage TEMPLATE template0").format(sql.Identifier(name)))
        yield name
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_curl_head_succeeds_on_a_503_and_our_check_does_not(incident: Sandbox, tmp_path: Path) -> None:
    url = incident.layout.url("front")
    theirs = shell(f"curl -I -H 'Host: api.marketsage.com' {url}/api/v2/health", tmp_path)
    assert theirs.returncode == 0 and " 503 " in theirs.stdout.splitlines()[0]
    ours = incident.playbook("health_check", "-e", "service=backend")
    assert ours.returncode == 5, ours.stdout
    assert "API health endpoint returns 200" in ours.stdout and "answered 503" in ours.stdout


def test_a_diff_against_the_bad_releases_schema_finds_nothing_and_our_plan_does(incident: Sandbox) -> None:
    line = f"{PRISMA} migrate diff --from-url $DATABASE_URL --to-schema-datamodel prisma/schema.prisma"
    theirs = shell(line, release_of(incident.layout, "v1.2.4-destructive"), **on_host(incident.layout))
    assert (theirs.returncode, theirs.stdout.strip()) == (0, "No difference detected."), theirs.stderr
    ours = incident.playbook("backend", *SAID, "--check")
    assert any(line.startswith("database: destructive") for line in plan_in(ours.stdout)), ours.stdout


def test_their_backup_is_empty_or_cannot_be_restored_and_ours_is_proven(incident: Sandbox, tmp_path: Path) -> None:
    variables = on_host(incident.layout)
    failed = shell("pg_dump $DATABASE_URL > backup_$(date +%Y%m%d_%H%M).sql", tmp_path, **variables)
    (dump,) = tmp_path.iterdir()
    assert failed.returncode != 0 and dump.read_text() == ""

    variables["DATABASE_URL"] = incident.layout.database_url
    assert shell(f"pg_dump $DATABASE_URL > {dump.name}", tmp_path, **variables).returncode == 0
    assert "backup_latest.sql" in shell("pg_restore -d $DATABASE_URL backup_latest.sql", tmp_path, **variables).stderr
    refused = shell(f"pg_restore -d $DATABASE_URL {dump.name}", tmp_path, **variables)
    assert refused.returncode != 0 and "text format dump. Please use psql" in refused.stderr

    ours = incident.rollback("run", "backup", "-s", "P0", "-r", "before it is rolled back")
    assert ours.returncode == 0, ours.stdout + ours.stderr
    (backup,) = incident.layout.backups.iterdir()
    assert json.loads((backup / "manifest.json").read_text())["proven_at"]
    assert "TABLE DATA public Contact" in shell(f"pg_restore --list {backup / 'dump'}", tmp_path, **variables).stdout


def test_the_second_cd_fails_and_another_repository_is_changed_and_our_plan_names_each(
    incident: Sandbox, tmp_path: Path
) -> None:
    repositories = {service: tmp_path / f"marketsage-{service}" for service in ("backend", "frontend")}
    for service, directory in repositories.items():
        origin = origins.repository(incident.layout.origin, service)
        assert shell(f"git clone --quiet {origin} {directory}", tmp_path).returncode == 0
    before = head(repositories["frontend"])
    script = "cd marketsage-backend\ngit checkout $BACKEND_ROLLBACK_COMMIT\n"
    script += "cd marketsage-frontend\ngit checkout $FRONTEND_ROLLBACK_COMMIT"
    theirs = shell(script, tmp_path, BACKEND_ROLLBACK_COMMIT="v1.1.0", FRONTEND_ROLLBACK_COMMIT="v1.0.0")
    assert theirs.returncode == 0 and "marketsage-frontend: No such file or directory" in theirs.stderr
    commits = {
        (service, ref): build.release(incident.layout.origin, service, ref).commit
        for service, ref in (("backend", "v1.0.0"), ("backend", "v1.1.0"), ("frontend", "v1.0.0"))
    }
    assert head(repositories["backend"]) == commits["backend", "v1.0.0"]
    assert head(repositories["frontend"]) == before

    target = json.dumps({"to": {"backend": "v1.1.0", "frontend": commits["frontend", "v1.0.0"]}})
    ours = incident.playbook("full_system", *SAID, "-e", target, "--check")
    assert ours.returncode == 0, ours.stdout
    planned = "\n".join(plan_in(ours.stdout))
    assert f"-> {commits['backend', 'v1.1.0'][:12]}" in planned
    assert f"-> {commits['frontend', 'v1.0.0'][:12]}" in planned


def head(repository: Path) -> str:
    return shell("git rev-parse HEAD", repository).stdout.strip()


def test_a_checkout_of_a_directory_leaves_what_was_added_and_our_hybrid_does_not(
    running: Sandbox, tmp_path: Path, call_module: Call, run: dict[str, Any]
) -> None:
    added = "src/components/admin/audit-trail.tsx"
    origin, tree = origins.repository(running.layout.origin, "frontend"), tmp_path / "tree"
    line = "git checkout HEAD~1 -- src/components/admin/ && git checkout HEAD~1 -- src/app/\\(admin\\)/"
    assert shell(f"git clone --quiet -b v1.2.3-bad-components {origin} {tree}", tmp_path).returncode == 0
    assert shell(line, tree).returncode == 0
    assert (tree / added).exists()

    live, target = (
        build.release(running.layout.origin, "frontend", ref).commit for ref in ("v1.2.3-bad-components", "v1.1.0")
    )
    row = {"component": "admin-components", "paths": ["src/components/admin", "src/app/(admin)"]}
    repository = {"repository": str(tree / ".git"), "live": live, **row}
    (composed,) = call_module(rollback_branch, **repository, targets=[target])["compositions"]
    assert composed["removed"] == [added]
    made = call_module(
        rollback_branch, state="present", **repository, target=target, commit=composed["commit"], run=run,
        branch="rollback/frontend-20261124-0315",
    )  # fmt: skip
    assert made["changed"], made
    files = shell(f"git ls-tree -r --name-only {composed['commit']}", tree).stdout.splitlines()
    assert added not in files and "src/components/admin/sign-in.tsx" in files


def test_a_read_only_default_reaches_no_open_session_and_our_fence_does(
    running: Sandbox, scratch: str, tmp_path: Path, call_module: Call, run: dict[str, Any]
) -> None:
    url = running.layout.database_url.removesuffix("marketsage") + scratch
    admin = running.layout.admin_database_url.removesuffix("marketsage") + scratch
    insert = "INSERT INTO row VALUES (1)"
    with psycopg.connect(url, autocommit=True) as opened, servers.maintenance_connection(running.layout) as server:
        opened.execute("CREATE TABLE row (id int)")
        server.execute(f"ALTER DATABASE {scratch} SET default_transaction_read_only = on")
        opened.execute(insert)
        with psycopg.connect(url, autocommit=True) as new:
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                new.execute(insert)
            new.execute("SET default_transaction_read_only = off")
            new.execute(insert)

        files = {"database_url_file": tmp_path / "admin", "application_url_file": tmp_path / "application"}
        for path, text in zip(files.values(), (admin, url), strict=True):
            path.touch(0o600)
            path.write_text(text)
        fenced = call_module(postgres_fence, state="fenced", run=run, **{name: str(one) for name, one in files.items()})
        assert fenced.get("fenced"), fenced
        with pytest.raises(psycopg.OperationalError):
            opened.execute(insert)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url)


def test_db_push_drops_a_column_silently_and_the_ledger_does_not_know(running: Sandbox, scratch: str) -> None:
    """Ours is what the next test and test_procedures see: the column is kept aside, and the ledger goes back too."""
    layout = running.layout
    additive = build.release(layout.origin, "backend", "v1.2.3-additive").path
    variables = on_host(layout, scratch)
    with psycopg.connect(layout.admin_database_url.removesuffix("marketsage") + scratch) as database:
        database.execute("ALTER SCHEMA public OWNER TO marketsage")
    assert shell(f"{PRISMA} migrate deploy", additive, **variables).returncode == 0
    assert "company" in columns(layout, scratch)

    theirs = shell(f"{PRISMA} db push --skip-generate", release_of(layout, "v1.1.0"), **variables)
    assert theirs.returncode == 0 and "data loss" not in theirs.stdout + theirs.stderr, theirs.stdout + theirs.stderr
    assert "company" not in columns(layout, scratch)
    status = shell(f"{PRISMA} migrate status", additive, **variables)
    assert status.returncode == 0 and "Database schema is up to date!" in status.stdout, status.stdout


def columns(layout: Layout, database: str, schema: str = "public") -> set[str]:
    asked = "SELECT column_name FROM information_schema.columns WHERE table_name = 'Contact' AND table_schema = %s"
    with psycopg.connect(layout.admin_database_url.removesuffix("marketsage") + database) as connection:
        return {name for (name,) in connection.execute(asked, [schema])}


def test_a_second_start_dies_while_the_bad_build_answers_and_ours_is_the_one_that_answers(
    incident: Sandbox, request: pytest.FixtureRequest
) -> None:
    bad, good = (build.release(incident.layout.origin, "backend", ref).id for ref in ("v1.2.4-destructive", "v1.1.0"))
    theirs = shell("npm run start:prod", release_of(incident.layout, "v1.1.0"), **on_host(incident.layout))
    assert theirs.returncode != 0 and "EADDRINUSE" in theirs.stdout + theirs.stderr
    assert [host["answering"] for host in state.read(incident.layout)["hosts"].values()] == [[bad]] * len(HOSTS)

    healed: Sandbox = request.getfixturevalue("healed")
    assert [host["answering"] for host in state.read(healed.layout)["hosts"].values()] == [[good]] * len(HOSTS)


def test_what_our_schema_rollback_drops_is_kept_and_the_ledger_says_so(healed: Sandbox) -> None:
    layout = healed.layout
    assert "fullName" not in columns(layout, "marketsage")
    with psycopg.connect(layout.admin_database_url) as database:
        kept = database.execute(
            "SELECT c.column_name FROM information_schema.columns c JOIN information_schema.schemata s"
            " ON s.schema_name = c.table_schema WHERE s.schema_name LIKE 'rollback%%' AND c.column_name = 'phone'"
        ).fetchall()
    assert kept == [("phone",)]
    variables = on_host(layout)
    clean = shell(f"{PRISMA} migrate status", release_of(layout, "v1.1.0"), **variables)
    assert clean.returncode == 0 and "up to date" in clean.stdout, clean.stdout
    behind = shell(f"{PRISMA} migrate status", release_of(layout, "v1.2.4-destructive"), **variables)
    assert behind.returncode != 0 and "not yet been applied" in behind.stdout, behind.stdout
