"""The Railway emulator, and railway_rollback against it, each with real processes and every fault."""
from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what: Callable[[], Any], why: str) -> Any:
    """What `what` returns once that is true."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        if result := what():
            return result
        time.sleep(0.05)
    pytest.fail(f"not within {WAIT_SECONDS} s: {why}")


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
        until(lambda: self.state()["live"] == deployment and self.settled(), f"{commit} live")
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
    api, edge = free_port(), free_port()
    emulator = Emulator(None, f"http://127.0.0.1:{api}", f"http://127.0.0.1:{edge}", directory)  # type: ignore[arg-type]
    command = [sys.executable, "-m", "ansible_collections.marketsage.rollback.sandbox.railway"]
    ports = ["--directory", directory / "logs", "--api-port", str(api), "--edge-port", str(edge)]
    tokens = ["--account-token-file", emulator.secret("account", ACCOUNT)]
    tokens += ["--project-token-file", emulator.secret("project", PROJECT)]
    environment = {**os.environ, "PYTHONPATH": str(COLLECTIONS), MARK: mark}
    emulator.process = subprocess.Popen([*command, *ports, *tokens, "--drain", "1", *options], env=environment)
    try:
        until(lambda: answers(emulator), "the emulator answers")
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
            until(lambda: emulator.status(bad) == status, status)
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
        served = until(lambda: emulator.served()["release"] == GOOD[:12] and emulator.served(), "rolled back")
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
        until(lambda: emulator.status(good) == "CRASHED", "CRASHED")
        assert httpx.get(f"{emulator.edge}/").status_code == 502


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_emulator(tmp_path: Path, end: signal.Signals) -> None:
    with running(tmp_path / "railway", str(tmp_path)) as emulator:
        emulator.deploy(GOOD)
        assert len(processes(str(tmp_path))) == 2
        emulator.process.send_signal(end)
        emulator.process.wait(WAIT_SECONDS)
        until(lambda: not processes(str(tmp_path)), "no process left")
    with running(tmp_path / "railway", str(tmp_path)) as again:
        again.deploy(GOOD)
