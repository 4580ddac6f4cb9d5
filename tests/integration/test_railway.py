"""The Railway emulator, and railway_rollback against it, each with real processes and every fault."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from ansible_collections.marketsage.rollback.tests.helpers import eventually, free_ports

COLLECTIONS = Path(__file__).resolve().parents[2] / "collections"
SERVICE = "marketsage-frontend"
GOOD, BETTER, BAD = "a" * 40, "b" * 40, "c" * 40
ACCOUNT, PROJECT = "account-token-of-the-test", "project-token-of-the-test"
MARK = "MARKETSAGE_SANDBOX_PROCESS"
WAIT_SECONDS = 30

# Stands in for a built Next.js application; HEALTH in its image's directory says how it answers.
SERVER_JS = """
const http = require('http'), fs = require('fs'), env = process.env
const health = fs.readFileSync('HEALTH', 'utf8').trim()
if (health === 'exit') process.exit(7)
http.createServer((request, response) => {
  const release = env.RAILWAY_GIT_COMMIT_SHA.slice(0, 12)
  const body = { release, deployment: env.RAILWAY_DEPLOYMENT_ID, api: env.API_URL }
  const answer = () => response.writeHead(request.url === '/api/health' ? +health : 200).end(JSON.stringify(body))
  setTimeout(answer, request.url === '/slow' ? 1000 : 0)
}).listen(+env.PORT, env.HOSTNAME)
process.on('SIGTERM', () => process.exit(0))
"""


@dataclass
class Emulator:
    process: subprocess.Popen[bytes]
    api: str
    edge: str
    directory: Path

    def image(self, health: str) -> str:
        image = self.directory / f"image-{health}"
        image.mkdir(exist_ok=True)
        (image / "server.js").write_text(SERVER_JS)
        (image / "HEALTH").write_text(health)
        return str(image)

    def begin(self, commit: str, health: str = "200", **more: Any) -> str:
        body = {"service": SERVICE, "commitHash": commit, "image": self.image(health), "branch": "main", **more}
        return httpx.post(f"{self.api}/_control/deploy", json=body).raise_for_status().json()["id"]

    def deploy(self, commit: str, **more: Any) -> str:
        """Ship a release and return its deployment's id once it is live."""
        deployment = self.begin(commit, commitMessage=f"Release {commit[:3]}", **more)
        eventually(lambda: self.state()["live"] == deployment and self.settled())
        return deployment

    def settled(self) -> bool:
        return all(one["status"] in ("SUCCESS", "REMOVED", "FAILED", "CRASHED") for one in self.state()["deployments"])

    def faults(self, *faults: dict[str, Any]) -> None:
        httpx.post(f"{self.api}/_control/faults", json=list(faults)).raise_for_status()

    def state(self) -> dict[str, Any]:
        return httpx.get(f"{self.api}/_control/state").raise_for_status().json()

    def status(self, deployment: str) -> str:
        return next(one["status"] for one in self.state()["deployments"] if one["id"] == deployment)

    def live_commit(self) -> str:
        state = self.state()
        return next(one["commitHash"] for one in state["deployments"] if one["id"] == state["live"])

    def served(self) -> dict[str, Any]:
        return httpx.get(f"{self.edge}/").raise_for_status().json()

    def ask(self, query: str, headers: dict[str, str] | None = None, **variables: Any) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {ACCOUNT}"} if headers is None else headers
        answer = httpx.post(f"{self.api}/graphql/v2", json={"query": query, "variables": variables}, headers=headers)
        assert answer.status_code == 200
        return answer.json()

    def secret(self, name: str, value: str) -> str:
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_text(value + "\n")
        return str(path)


@contextmanager
def running(directory: Path, mark: str, *options: str) -> Iterator[Emulator]:
    directory.mkdir(exist_ok=True)
    api, edge = free_ports(2)
    emulator = Emulator(None, f"http://127.0.0.1:{api}", f"http://127.0.0.1:{edge}", directory)  # type: ignore[arg-type]
    command = [sys.executable, "-m", "ansible_collections.marketsage.rollback.sandbox.railway"]
    ports = ["--directory", directory / "logs", "--api-port", str(api), "--edge-port", str(edge)]
    tokens = ["--account-token-file", emulator.secret("account", ACCOUNT)]
    tokens += ["--project-token-file", emulator.secret("project", PROJECT)]
    environment = {**os.environ, "PYTHONPATH": str(COLLECTIONS), MARK: mark}
    emulator.process = subprocess.Popen([*command, *ports, *tokens, "--drain", "1", *options], env=environment)
    try:
        eventually(lambda: answers(emulator))
        yield emulator
    finally:
        emulator.process.terminate()
        emulator.process.wait(WAIT_SECONDS)


def answers(emulator: Emulator) -> bool:
    assert emulator.process.poll() is None, "the emulator ended"
    try:
        return bool(emulator.state())
    except httpx.TransportError:
        return False


def processes(mark: str) -> list[int]:
    """The living processes that carry this sandbox's mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    with running(tmp_path / "railway", str(tmp_path)) as emulator:
        yield emulator


LIST = """query($input: DeploymentListInput!, $first: Int, $after: String) {
  deployments(input: $input, first: $first, after: $after) {
    edges { cursor node { id status canRollback meta } } pageInfo { hasNextPage endCursor } } }"""


def nodes(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [edge["node"] for edge in answer["data"]["deployments"]["edges"]]


class TestEmulator:
    def test_a_deployment_goes_live_and_the_one_before_is_removed(self, emulator: Emulator) -> None:
        first = emulator.deploy(GOOD, variables={"API_URL": "http://api.example"})
        assert emulator.served() == {"release": GOOD[:12], "deployment": first, "api": "http://api.example"}
        second = emulator.deploy(BAD)
        assert emulator.served()["deployment"] == second
        assert emulator.status(first) == "REMOVED"

    @pytest.mark.parametrize(("health", "status"), [("500", "FAILED"), ("exit", "CRASHED")])
    def test_an_unhealthy_deployment_does_not_replace_the_live_one(
        self, tmp_path: Path, health: str, status: str
    ) -> None:
        with running(tmp_path / "railway", str(tmp_path), "--health-timeout", "1") as emulator:
            good = emulator.deploy(GOOD)
            bad = emulator.begin(BAD, health)
            eventually(lambda: emulator.status(bad) == status)
            assert emulator.served()["deployment"] == good
            assert emulator.state()["live"] == good

    def test_a_request_under_way_is_finished_by_the_deployment_it_reached(self, emulator: Emulator) -> None:
        first = emulator.deploy(GOOD)
        with ThreadPoolExecutor() as pool:
            slow = pool.submit(httpx.get, f"{emulator.edge}/slow", timeout=WAIT_SECONDS)
            emulator.deploy(BAD)
            assert slow.result().json()["deployment"] == first

    def test_a_kept_connection_reaches_what_is_live_now(self, emulator: Emulator) -> None:
        with httpx.Client(base_url=emulator.edge) as client:
            emulator.deploy(GOOD)
            assert client.get("/").json()["release"] == GOOD[:12]
            emulator.deploy(BAD)
            assert client.get("/").json()["release"] == BAD[:12]

    def test_a_rollback_is_a_new_deployment_of_image_and_variables(self, emulator: Emulator) -> None:
        good = emulator.deploy(GOOD, variables={"API_URL": "http://then"})
        emulator.deploy(BAD, variables={"API_URL": "http://now"})
        answer = emulator.ask("mutation($id: String!) { deploymentRollback(id: $id) }", id=good)
        assert answer == {"data": {"deploymentRollback": True}}
        served = eventually(lambda: emulator.served()["release"] == GOOD[:12] and emulator.served())
        assert served["deployment"] != good
        assert served["api"] == "http://then"
        snapshot = "query($id: String!) { deploymentSnapshot(deploymentId: $id) { variables } }"
        assert emulator.ask(snapshot, id=good)["data"]["deploymentSnapshot"]["variables"]["API_URL"] == "http://then"

    def test_the_published_form_of_the_mutation_is_refused(self, emulator: Emulator) -> None:
        good = emulator.deploy(GOOD)
        answer = emulator.ask("mutation($id: String!) { deploymentRollback(id: $id) { id } }", id=good)
        assert "must not have a selection" in answer["errors"][0]["message"]

    def test_the_image_of_a_removed_deployment_is_kept_for_a_while(self, emulator: Emulator) -> None:
        good = emulator.deploy(GOOD)
        bad = emulator.deploy(BAD)
        assert [(one["id"], one["canRollback"]) for one in nodes(emulator.ask(LIST, input={}))] == [
            (bad, False),
            (good, True),
        ]
        emulator.faults({"operation": "*", "kind": "expire", "seconds": 0})
        assert not any(one["canRollback"] for one in nodes(emulator.ask(LIST, input={})))
        answer = emulator.ask("mutation($id: String!) { deploymentRollback(id: $id) }", id=good)
        assert answer["errors"]

    def test_pages_and_status_filter(self, emulator: Emulator) -> None:
        ids = [emulator.deploy(commit) for commit in (GOOD, BETTER, BAD)][::-1]
        page = emulator.ask(LIST, input={}, first=2)
        assert [one["id"] for one in nodes(page)] == ids[:2]
        info = page["data"]["deployments"]["pageInfo"]
        assert info["hasNextPage"]
        rest = emulator.ask(LIST, input={}, first=2, after=info["endCursor"])
        assert [one["id"] for one in nodes(rest)] == ids[2:]
        assert not rest["data"]["deployments"]["pageInfo"]["hasNextPage"]
        assert [one["id"] for one in nodes(emulator.ask(LIST, input={"status": {"in": ["SUCCESS"]}}))] == ids[:1]
        assert [one["id"] for one in nodes(emulator.ask(LIST, input={"status": {"notIn": ["SUCCESS"]}}))] == ids[1:]

    @pytest.mark.parametrize(
        ("query", "headers", "message"),
        [
            ("{ me { id } }", {}, "Not Authorized"),
            ("{ me { id } }", {"Authorization": f"Bearer {PROJECT}"}, "Not Authorized"),
            ("{ me { id } }", {"Project-Access-Token": PROJECT}, "Not Authorized"),
            ("{ projectToken { projectId } }", {"Project-Access-Token": ACCOUNT}, "Project Token not found"),
            ("{ projectToken { projectId } }", {"Authorization": f"Bearer {ACCOUNT}"}, "Project Token not found"),
        ],
    )
    def test_the_wrong_kind_of_token_is_refused(
        self, emulator: Emulator, query: str, headers: dict[str, str], message: str
    ) -> None:
        answer = emulator.ask(query, headers)
        assert answer["data"] is None
        assert answer["errors"][0]["message"] == message

    def test_the_right_kind_of_token_is_not(self, emulator: Emulator) -> None:
        assert emulator.ask("{ me { id } }")["data"]["me"]
        assert emulator.ask("{ projectToken { projectId } }", {"Project-Access-Token": PROJECT})["data"]["projectToken"]

    def test_auto_deploy_can_be_switched(self, emulator: Emulator) -> None:
        project = emulator.ask("{ projects { edges { node { id } } } }")["data"]["projects"]["edges"][0]["node"]["id"]
        parts = """query($id: String!) { project(id: $id) {
          environments { edges { node { id } } } services { edges { node { id } } } } }"""
        found = emulator.ask(parts, id=project)["data"]["project"]
        place = {
            "projectId": project,
            "environmentId": found["environments"]["edges"][0]["node"]["id"],
            "serviceId": found["services"]["edges"][0]["node"]["id"],
        }
        update = """mutation($input: ServiceInstanceAutoDeployUpdateInput!) {
          serviceInstanceAutoDeployUpdate(input: $input) { enabled } }"""
        read = """query($projectId: String!, $environmentId: String!, $serviceId: String!) {
          serviceInstanceAutoDeployStatus(projectId: $projectId, environmentId: $environmentId, serviceId: $serviceId) {
            enabled } }"""
        assert emulator.ask(read, **place)["data"]["serviceInstanceAutoDeployStatus"]["enabled"]
        assert emulator.ask(update, input={**place, "enabled": False})["data"]
        assert not emulator.ask(read, **place)["data"]["serviceInstanceAutoDeployStatus"]["enabled"]

    def test_a_limit_is_said_with_429(self, emulator: Emulator) -> None:
        emulator.faults({"operation": "me", "kind": "rate_limit", "seconds": 3})
        call = {"json": {"query": "{ me { id } }"}, "headers": {"Authorization": f"Bearer {ACCOUNT}"}}
        answer = httpx.post(f"{emulator.api}/graphql/v2", **call)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")
        assert "X-RateLimit-Remaining" in answer.headers
        assert httpx.post(f"{emulator.api}/graphql/v2", **call).status_code == 200

    @pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
    def test_a_dropped_call_gets_no_answer(self, emulator: Emulator, kind: str) -> None:
        good = emulator.deploy(GOOD)
        emulator.deploy(BAD)
        emulator.faults({"operation": "deploymentRollback", "kind": kind})
        with pytest.raises(httpx.TransportError):
            emulator.ask("mutation($id: String!) { deploymentRollback(id: $id) }", id=good)
        assert len(emulator.state()["deployments"]) == (2 if kind == "drop_before" else 3)

    @pytest.mark.parametrize(
        "body",
        [
            {"service": "another", "commitHash": GOOD},
            {"service": SERVICE, "commitHash": "HEAD"},
            {"service": SERVICE, "commitHash": GOOD, "image": "/nonexistent"},
        ],
    )
    def test_the_control_door_names_what_is_wrong(self, emulator: Emulator, body: dict[str, str]) -> None:
        answer = httpx.post(f"{emulator.api}/_control/deploy", json=body)
        assert answer.status_code == 400
        assert answer.json()["error"].split(":")[0] in ("service", "commitHash", "image")

    def test_an_unknown_fault_is_refused(self, emulator: Emulator) -> None:
        answer = httpx.post(f"{emulator.api}/_control/faults", json=[{"operation": "me", "kind": "explode"}])
        assert answer.status_code == 400

    def test_a_live_process_that_dies_has_crashed(self, emulator: Emulator) -> None:
        good = emulator.deploy(GOOD)
        os.kill(emulator.state()["deployments"][0]["pid"], signal.SIGKILL)
        eventually(lambda: emulator.status(good) == "CRASHED")
        assert httpx.get(f"{emulator.edge}/").status_code == 502


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_emulator(tmp_path: Path, end: signal.Signals) -> None:
    with running(tmp_path / "railway", str(tmp_path)) as emulator:
        emulator.deploy(GOOD)
        assert len(processes(str(tmp_path))) == 2
        emulator.process.send_signal(end)
        emulator.process.wait(WAIT_SECONDS)
        eventually(lambda: not processes(str(tmp_path)))
    with running(tmp_path / "railway", str(tmp_path)) as again:
        again.deploy(GOOD)


MODULE = "ansible_collections.marketsage.rollback.plugins.modules.railway_rollback"
RUN_ID = "20261124T031500Z-frontend-3f9a"


@dataclass
class Operator:
    """Who calls the module: each call in a process of its own, as Ansible makes it."""

    emulator: Emulator
    state_dir: Path

    def start(self, check: bool = False, **arguments: Any) -> subprocess.Popen[str]:
        given = {
            "api_url": f"{self.emulator.api}/graphql/v2",
            "token_file": str(self.emulator.directory / "project"),
            "token_type": "project",
            "service": SERVICE,
            "timeout": WAIT_SECONDS,
            "poll_interval": 0.5,
            "run": {"id": RUN_ID, "fence": 1, "state_dir": str(self.state_dir)},
            **arguments,
            "_ansible_check_mode": check,
        }
        module = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
        )
        assert module.stdin
        module.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": given}))
        module.stdin.close()
        return module

    def call(self, check: bool = False, **arguments: Any) -> dict[str, Any]:
        module = self.start(check, **arguments)
        assert module.stdout
        output = module.stdout.read()
        module.wait()
        assert ACCOUNT not in output
        assert PROJECT not in output
        return json.loads(output)

    def mutations(self) -> int:
        return self.emulator.state()["calls"].get("deploymentRollback", 0)

    def journal(self) -> list[str]:
        lines = (self.state_dir / "journal" / f"{RUN_ID}.jsonl").read_text().splitlines()
        return [json.loads(line)["kind"] for line in lines]


@pytest.fixture
def operator(emulator: Emulator, tmp_path: Path) -> Operator:
    return Operator(emulator, tmp_path / "state")


@pytest.fixture
def good(emulator: Emulator) -> str:
    """The id of the good deployment that a bad one has replaced."""
    good = emulator.deploy(GOOD, variables={"API_URL": "http://then", "SAME": "1"})
    emulator.deploy(BAD, variables={"API_URL": "http://now", "SAME": "1", "NEW": "secret-value"})
    return good


def rollback_fault(kind: str, **more: Any) -> dict[str, Any]:
    return {"operation": "deploymentRollback", "kind": kind, **more}


class TestRollback:
    def test_check_mode_says_exactly_what_is_then_done(self, operator: Operator, good: str) -> None:
        plan = operator.call(check=True)
        assert operator.mutations() == 0
        assert operator.emulator.live_commit() == BAD
        assert (plan["changed"], plan["method"]) == (True, "rollback")
        assert (plan["live"]["commit"], plan["target"]["id"], plan["target"]["commit"]) == (BAD, good, GOOD)
        assert [one["id"] for one in plan["candidates"]] == [good]
        assert plan["variables_changed"] == ["API_URL", "NEW"]
        assert "secret-value" not in json.dumps(plan)
        assert 0 < plan["retention_left"] <= 120 * 3600
        assert plan["candidates"][0]["retention_left"] == pytest.approx(plan["retention_left"], abs=2)
        assert plan["auto_deploy"] is True
        assert plan["restored"] is None

        done = operator.call(deployment=plan["target"]["id"])
        assert {key: done[key] for key in ("target", "method", "diff")} == {
            key: plan[key] for key in ("target", "method", "diff")
        }
        assert done["restored"]["commit"] == GOOD
        assert operator.emulator.served()["deployment"] == done["restored"]["id"]
        assert operator.emulator.served()["api"] == "http://then"
        assert operator.journal() == ["intent", "outcome"]

    def test_done_again_it_changes_nothing(self, operator: Operator, good: str) -> None:
        assert operator.call(deployment=good)["changed"]
        again = operator.call(deployment=good)
        assert (again["changed"], again["method"]) == (False, "none")
        assert operator.call(commit=GOOD)["changed"] is False
        assert operator.mutations() == 1

    def test_an_account_token_needs_names(self, operator: Operator, good: str) -> None:
        account = {"token_file": str(operator.emulator.directory / "account"), "token_type": "account"}
        assert "project:" in operator.call(**account)["msg"]
        wrong = operator.call(**account, project="MarketSage", environment="staging")
        assert wrong["msg"] == "environment: 'staging' is not known to this token (there: production)"
        assert operator.call(**account, project="MarketSage", environment="production")["restored"]["commit"] == GOOD

    def test_the_wrong_kind_of_token_is_named(self, operator: Operator, good: str) -> None:
        failed = operator.call(token_type="account", project="marketsage", environment="production")
        assert failed["exit_code"] == 2
        assert failed["msg"].startswith("token_file: Railway says 'Not Authorized'")

    def test_commits_marked_bad_are_never_gone_back_to(self, operator: Operator) -> None:
        for commit in (GOOD, BETTER, BAD):
            operator.emulator.deploy(commit)
        assert operator.call(check=True)["target"]["commit"] == BETTER
        assert operator.call(avoid=[BETTER])["restored"]["commit"] == GOOD
        assert "marked bad" in operator.call(commit=BETTER, avoid=[BETTER])["msg"]

    def test_the_same_commit_deployed_again_is_no_target(self, operator: Operator) -> None:
        for commit in (GOOD, BAD, BAD):
            operator.emulator.deploy(commit)
        assert operator.call()["restored"]["commit"] == GOOD

    def test_nothing_to_go_back_to_is_a_failure_that_says_what_is_live(self, operator: Operator) -> None:
        operator.emulator.deploy(BAD)
        failed = operator.call()
        assert failed["exit_code"] == 3
        assert "nothing to go back to" in failed["msg"]
        assert (failed["live"]["commit"], failed["candidates"]) == (BAD, [])

    def test_an_image_that_is_gone_is_built_again_if_allowed(self, operator: Operator, good: str) -> None:
        operator.emulator.faults({"operation": "*", "kind": "expire"})
        failed = operator.call(deployment=good)
        assert failed["exit_code"] == 3
        assert "image gone" in failed["msg"]
        plan = operator.call(check=True, fallback="redeploy")
        assert (plan["method"], plan["retention_left"]) == ("redeploy", None)
        assert operator.call(fallback="redeploy")["restored"]["commit"] == GOOD
        assert operator.emulator.state()["deployments"][0]["reason"] == "redeploy"

    def test_another_deployment_under_way_is_a_refusal(self, operator: Operator, good: str) -> None:
        operator.emulator.begin(BETTER, "500")
        eventually(lambda: operator.emulator.state()["deployments"][0]["status"] == "DEPLOYING")
        failed = operator.call(deployment=good)
        assert failed["exit_code"] == 3
        assert "is under way" in failed["msg"]
        assert operator.mutations() == 0

    def test_a_refusal_changes_nothing(self, operator: Operator, good: str) -> None:
        operator.emulator.faults(rollback_fault("refuse"))
        failed = operator.call(deployment=good)
        assert failed["exit_code"] == 3
        assert "Problem processing request" in failed["msg"]
        assert operator.emulator.live_commit() == BAD
        assert operator.journal() == ["intent", "failed"]

    @pytest.mark.parametrize(("kind", "mutations"), [("drop_before", 2), ("drop_after", 1)])
    def test_a_lost_reply_is_resolved_by_reading(
        self, operator: Operator, good: str, kind: str, mutations: int
    ) -> None:
        operator.emulator.faults(rollback_fault(kind))
        assert operator.call(deployment=good)["restored"]["commit"] == GOOD
        assert operator.mutations() == mutations
        assert len(operator.emulator.state()["deployments"]) == 3

    def test_when_every_reply_is_lost_the_run_is_held(self, operator: Operator, good: str) -> None:
        operator.emulator.faults(rollback_fault("drop_before", times=9))
        failed = operator.call(deployment=good)
        assert failed["exit_code"] == 20
        assert operator.mutations() == 2
        assert operator.emulator.live_commit() == BAD

    def test_a_limit_is_waited_for(self, operator: Operator, good: str) -> None:
        busy = {"operation": "deployments", "kind": "rate_limit"}
        operator.emulator.faults(rollback_fault("rate_limit", seconds=1), busy)
        assert operator.call(deployment=good)["restored"]["commit"] == GOOD

    def test_a_slow_answer_is_waited_for(self, operator: Operator, good: str) -> None:
        operator.emulator.faults(rollback_fault("delay", seconds=2))
        assert operator.call(deployment=good)["restored"]["commit"] == GOOD
        assert operator.mutations() == 1

    def test_a_duplicate_ends_on_the_target(self, operator: Operator, good: str) -> None:
        operator.emulator.faults(rollback_fault("duplicate"))
        done = operator.call(deployment=good)
        assert done["restored"]["commit"] == GOOD
        eventually(operator.emulator.settled)
        assert operator.emulator.live_commit() == GOOD

    def test_a_failed_deployment_is_reported_with_its_diagnosis(self, operator: Operator, good: str) -> None:
        operator.emulator.faults(rollback_fault("fail"))
        failed = operator.call(deployment=good)
        assert failed["exit_code"] == 20
        assert "FAILED" in failed["msg"]
        assert "the health check did not answer 200" in failed["msg"]
        assert operator.emulator.live_commit() == BAD

    def test_a_stuck_deployment_ends_at_the_deadline_with_what_was_seen(self, operator: Operator, good: str) -> None:
        operator.emulator.faults(rollback_fault("stuck"))
        failed = operator.call(deployment=good, timeout=3)
        assert failed["exit_code"] == 20
        assert f"of commit {GOOD} (DEPLOYING)" in failed["msg"]
        assert f"of commit {BAD} (SUCCESS)" in failed["msg"]

    def test_reading_that_fails_for_a_while_does_not_matter(self, operator: Operator, good: str) -> None:
        module = operator.start(deployment=good)
        eventually(operator.mutations)
        operator.emulator.faults({"operation": "deployments", "kind": "refuse", "times": 3})
        assert module.stdout
        assert json.loads(module.stdout.read())["restored"]["commit"] == GOOD
        module.wait()

    def test_a_change_needs_a_run(self, operator: Operator, good: str) -> None:
        assert operator.call(deployment=good, run=None)["exit_code"] == 3
        assert operator.mutations() == 0

    def test_killed_after_the_mutation_the_same_call_adopts_what_is_under_way(
        self, operator: Operator, good: str
    ) -> None:
        operator.emulator.faults(rollback_fault("stuck"))
        module = operator.start(deployment=good)
        eventually(operator.mutations)
        module.kill()
        module.wait()
        resumed = operator.call(deployment=good, timeout=2)
        assert operator.emulator.state()["deployments"][0]["id"] in resumed["msg"]
        assert operator.mutations() == 1

    def test_killed_before_the_reply_the_same_call_ends_as_if_undisturbed(
        self, operator: Operator, good: str
    ) -> None:
        operator.emulator.faults(rollback_fault("delay", seconds=1))
        module = operator.start(deployment=good)
        eventually(operator.mutations)
        module.kill()
        module.wait()
        resumed = operator.call(deployment=good)
        assert (resumed["restored"] or resumed["live"])["commit"] == GOOD
        assert operator.mutations() == 1
        assert operator.emulator.live_commit() == GOOD

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ({"commit": "HEAD~1"}, "commit:"),
            ({"avoid": ["abc"]}, "avoid:"),
            ({"deployment": "--all"}, "deployment:"),
            ({"api_url": "http://backboard.railway.com/graphql/v2"}, "api_url:"),
            ({"timeout": 0}, "timeout:"),
            ({"poll_interval": 0}, "poll_interval:"),
            ({"service": "another"}, "service:"),
            ({"project": "another"}, "project:"),
            ({"token_file": "/nonexistent"}, "token_file:"),
        ],
    )
    def test_bad_input_is_one_line_that_names_the_parameter(
        self, operator: Operator, arguments: dict[str, Any], named: str
    ) -> None:
        failed = operator.call(**arguments)
        assert (failed["exit_code"], "\n" in failed["msg"]) == (2, False)
        assert failed["msg"].startswith(named)
        assert operator.mutations() == 0
