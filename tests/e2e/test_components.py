"""A component goes back alone while everything else keeps serving, and away again where it was not what is broken."""
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import redis
from ansible_collections.marketsage.rollback.sandbox import scenarios
from ansible_collections.marketsage.rollback.sandbox.layout import HOSTS
from ansible_collections.marketsage.rollback.sandbox.load import Load, missing_rows
from ansible_collections.marketsage.rollback.tests.helpers import further
from conftest import IMPATIENT, REPOSITORY, Sandbox
from test_procedures import plan_in

SAID = ("-s", "P0", "-r", "one component is broken")
# In an inventory, of which neither code nor catalogue knows: what heals backend-500, and what looks as if it did.
FURTHER = {
    "health": {
        "title": "Health check",
        "service": "backend",
        "paths": ["src/modules/health"],
        "checks": ["API health endpoint returns 200"],
    },
    "contacts": {
        "title": "Contacts",
        "service": "backend",
        "paths": ["src/modules/contacts"],
        "checks": ["API health endpoint returns 200"],
    },
}
# What becomes live of the others is a hybrid too; each builds a release, frontends take a minute.
HEALED = ["sessions", "pool", "api-proxy", "admin-middleware", "admin-components"]

# What a machine that builds meanwhile may do to a request. It explains no refusal, no reset and no 5xx.
BUSY = {"timeout"}


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """The sandbox's inventory with rows of its own, and less patience."""
    (tmp_path / "hosts.yml").symlink_to(REPOSITORY / "inventories/sandbox/hosts.yml")
    (tmp_path / "group_vars").mkdir()
    variables = {"rollback_further_components": FURTHER, "rollback_policy": IMPATIENT}
    (tmp_path / "group_vars" / "all.yml").write_text(json.dumps(variables))
    return tmp_path


@pytest.fixture
def store(sandbox: Sandbox) -> Iterator[redis.Redis]:
    client = redis.Redis(port=sandbox.layout.port("redis"))
    yield client
    client.close()


def others(store: redis.Redis) -> dict[bytes, bytes | None]:
    """Every key that is no session, with what it holds."""
    return {key: store.dump(key) for key in store.scan_iter(count=1000) if not key.startswith(b"sess:")}


def outcomes(sandbox: Sandbox) -> list[dict[str, Any]]:
    paths = sorted((sandbox.layout.control / "runs").glob("*/outcome.json"))
    return [json.loads(path.read_text()) for path in paths]


def is_broken(sandbox: Sandbox, scenario: str) -> bool:
    """Whether a symptom of a scenario is still there, whatever release shows it."""
    state = sandbox.railway()
    deployed = next(one["commitHash"][:12] for one in state["deployments"] if one["id"] == state["live"])
    live = {"backend": sandbox.revisions(HOSTS[0])[-1]["release"], "frontend": deployed}
    releases = {service: SimpleNamespace(id=release) for service, release in live.items()}
    with httpx.Client(base_url=sandbox.layout.url("front"), timeout=10, trust_env=False) as front:
        symptoms = scenarios.find(scenario).symptoms
        return any(scenarios.SYMPTOMS[symptom](sandbox.layout, front, releases) for symptom in symptoms)


@pytest.mark.every_fault
def test_the_authentication_module_goes_back_alone_and_sessions_end(sandbox: Sandbox, store: redis.Redis) -> None:
    sandbox.break_("auth")
    bad = sandbox.revisions("api-1")[-1]["release"]
    store.set("sess:old", '{"user": {"sub": "dana@example.com"}}')
    kept = others(store)
    innocent = sandbox.rollback("run", "component", "sessions", *SAID)
    assert innocent.returncode == 3, innocent.stdout
    assert "sessions: is not broken, " in innocent.stdout
    assert sandbox.revisions("api-1")[-1]["release"] == bad

    with Load(sandbox.layout, rate=10) as load:
        done = sandbox.rollback("run", "component", "auth", *SAID)
        met = load.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    assert not is_broken(sandbox, "auth")
    assert met["kinds"]["maintenance"] == 0 and met["errors"].keys() <= BUSY, met["errors"]
    assert missing_rows(sandbox.layout, load.record.acknowledged) == []
    live = {host: sandbox.revisions(host)[-1] for host in HOSTS}
    assert {revision["ref"].split("-")[0] for revision in live.values()} == {"rollback/backend"}
    assert sandbox.answer("api", "/api/v2/contacts?q=nobody-is-called-so").json() == []
    assert not store.exists("sess:old") and kept.items() <= others(store).items()

    again = sandbox.rollback("run", "component", "auth", *SAID)
    assert again.returncode == 0 and "nothing to change" in again.stdout, again.stdout
    assert {host: sandbox.revisions(host)[-1] for host in HOSTS} == live


def test_a_wrong_component_is_put_back_and_one_that_an_inventory_adds_heals(sandbox: Sandbox, inventory: Path) -> None:
    sandbox.break_("backend-500")
    bad = sandbox.revisions("api-1")[-1]["release"]
    elsewhere = sandbox.rollback("run", "component", "api-proxy", *SAID)
    assert elsewhere.returncode == 3, elsewhere.stdout
    assert "api-proxy: backend is what is down" in elsewhere.stdout
    assert "rollback run backend" in elsewhere.stdout

    ours = (*SAID, "-i", str(inventory))
    unknown = sandbox.rollback("run", "component", "health", *SAID)
    assert unknown.returncode == 2, unknown.stdout
    assert "component: 'health' is not one of auth, sessions" in unknown.stdout

    wrong = sandbox.rollback("run", "component", "contacts", *ours)
    assert wrong.returncode == 20, wrong.stdout + wrong.stderr
    assert "Perhaps contacts is not what is broken" in wrong.stdout
    assert {sandbox.revisions(host)[-1]["release"] for host in HOSTS} == {bad}
    assert not sandbox.shows_page()

    right = sandbox.rollback("run", "component", "health", *ours, "--instead-of", sandbox.holder())
    assert right.returncode == 0, right.stdout + right.stderr
    assert not is_broken(sandbox, "backend-500")
    assert [outcome["state"] for outcome in outcomes(sandbox)] == ["superseded", "done"]
    assert not (sandbox.layout.host("api-1") / "current" / "src/modules/health/readiness.service.ts").exists()
    assert (sandbox.layout.host("api-1") / "current" / "src/modules/contacts/contacts.controller.ts").exists()


def test_a_commit_that_was_never_deployed_is_built_and_deployed_by_hand(sandbox: Sandbox) -> None:
    sandbox.break_("admin-components")
    images = len(sandbox.railway()["deployments"])
    words = ("-e", "severity=P0", "-e", 'reason="images are gone"', "-e", "to=welcome")
    check = sandbox.playbook("frontend_manual", *words, "--check")
    assert check.returncode == 0, check.stdout + check.stderr
    assert len(sandbox.railway()["deployments"]) == images
    with Load(sandbox.layout, rate=10, services=["app", "admin"]) as load:
        done = sandbox.playbook("frontend_manual", *words)
        kinds = load.stop()["kinds"]
    assert done.returncode == 0, done.stdout + done.stderr
    assert plan_in(check.stdout) == plan_in(done.stdout)
    assert not is_broken(sandbox, "admin-components")
    assert "Welcome" in sandbox.answer("app", "/").text
    assert kinds["maintenance"] == 0


@pytest.mark.parametrize("component", further(*HEALED))
def test_each_component_heals_what_is_broken_in_it(sandbox: Sandbox, component: str) -> None:
    sandbox.break_(component)
    # With users about, every worker gets to where it breaks.
    Load(sandbox.layout, rate=50, requests=100).start().wait()
    services = {"backend": ["app", "admin"], "frontend": ["api"]}[next(iter(scenarios.find(component).deploys))]
    with Load(sandbox.layout, rate=20, services=services) as load:
        done = sandbox.rollback("run", "component", component, *SAID)
        met = load.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hybrid that never ran" in done.stdout
    assert not is_broken(sandbox, component)
    assert (met["kinds"]["maintenance"], met["kinds"]["bad"]) == (0, 0) and met["errors"].keys() <= BUSY, met["errors"]
    assert missing_rows(sandbox.layout, load.record.acknowledged) == []
