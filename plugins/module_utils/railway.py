# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Railway's GraphQL API: what the project sends, and what comes back as plain values.

Operations follow the schema that Railway's own CLI carries; its published guide shows `deploymentRollback` with a
selection, which the schema does not allow. Errors come with HTTP 200, so the status alone says nothing.
"""
from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import api
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Refused, RollbackError

IN_FLIGHT = ("INITIALIZING", "QUEUED", "WAITING", "BUILDING", "DEPLOYING")
SERVING = ("SUCCESS", "SLEEPING")
# A superseded good deployment is REMOVED; CANCELLED is not in the schema but has been seen.
ENDED_BADLY = ("FAILED", "CRASHED", "REMOVED", "SKIPPED", "CANCELLED")
ONCE_GOOD = ("SUCCESS", "SLEEPING", "REMOVING", "REMOVED")
# Hours for which a removed deployment's image is kept, from Railway's documentation.
RETENTION_HOURS = {"free": 24, "trial": 24, "hobby": 72, "pro": 120}

_HISTORY = 200
_PAGE = 100
_RECENT = 20

_DEPLOYMENT_FIELDS = """
fragment Fields on Deployment {
  id status createdAt statusUpdatedAt canRollback canRedeploy diagnosis meta environmentId serviceId
}
"""
OPERATIONS = {
    "ProjectToken": "query ProjectToken { projectToken { projectId environmentId } }",
    "Projects": """
query Projects($first: Int, $after: String) {
  projects(first: $first, after: $after) { edges { node { id name } } pageInfo { hasNextPage endCursor } }
}""",
    "Project": """
query Project($id: String!) {
  project(id: $id) {
    id name subscriptionType
    environments(first: 100) { edges { node { id name } } }
    services(first: 100) { edges { node { id name } } }
  }
}""",
    "State": """
query State($environmentId: String!, $serviceId: String!, $input: DeploymentListInput!, $first: Int, $after: String) {
  serviceInstance(environmentId: $environmentId, serviceId: $serviceId) { activeDeployments { ...Fields } }
  deployments(input: $input, first: $first, after: $after) {
    edges { node { ...Fields } }
    pageInfo { hasNextPage endCursor }
  }
}""" + _DEPLOYMENT_FIELDS,
    "Deployment": "query Deployment($id: String!) { deployment(id: $id) { ...Fields } }" + _DEPLOYMENT_FIELDS,
    "Variables": """
query Variables($live: String!, $target: String!) {
  live: deploymentSnapshot(deploymentId: $live) { variables }
  target: deploymentSnapshot(deploymentId: $target) { variables }
}""",
    "AutoDeploy": """
query AutoDeploy($projectId: String!, $environmentId: String!, $serviceId: String!) {
  serviceInstanceAutoDeployStatus(projectId: $projectId, environmentId: $environmentId, serviceId: $serviceId) {
    enabled
  }
}""",
    "SwitchAutoDeploy": """
mutation SwitchAutoDeploy($input: ServiceInstanceAutoDeployUpdateInput!) {
  serviceInstanceAutoDeployUpdate(input: $input) { enabled }
}""",
    "Rollback": "mutation Rollback($id: String!) { deploymentRollback(id: $id) }",
    "Redeploy": "mutation Redeploy($id: String!) { deploymentRedeploy(id: $id) { id } }",
}


class MaybeApplied(RollbackError):
    """A change was sent and no usable answer came: only reading can tell whether it was applied."""


@dataclass(frozen=True)
class Place:
    """A service in an environment of a project; `plan` is the project's subscription."""

    project_id: str
    project: str
    environment_id: str
    environment: str
    service_id: str
    service: str
    plan: str

    def ids(self) -> dict[str, str]:
        return {"projectId": self.project_id, "environmentId": self.environment_id, "serviceId": self.service_id}


@dataclass(frozen=True)
class Deployment:
    """A deployment as Railway reports it; `commit` is None where it was not made from a commit."""

    id: str
    status: str
    created: str
    status_updated: str | None
    can_rollback: bool
    can_redeploy: bool
    commit: str | None
    branch: str | None
    message: str | None
    author: str | None
    diagnosis: Any
    environment_id: str
    service_id: str | None

    @classmethod
    def of(cls, node: dict[str, Any]) -> Deployment:
        meta = node["meta"] if isinstance(node["meta"], dict) else {}
        return cls(
            id=node["id"],
            status=node["status"],
            created=node["createdAt"],
            status_updated=node["statusUpdatedAt"],
            can_rollback=node["canRollback"],
            can_redeploy=node["canRedeploy"],
            commit=meta.get("commitHash"),
            branch=meta.get("branch"),
            message=meta.get("commitMessage"),
            author=meta.get("commitAuthor"),
            diagnosis=node["diagnosis"],
            environment_id=node["environmentId"],
            service_id=node["serviceId"],
        )

    @property
    def in_flight(self) -> bool:
        return self.status in IN_FLIGHT

    def shown(self) -> dict[str, Any]:
        """What a module returns of it."""
        names = ("id", "status", "commit", "branch", "message", "author", "created", "can_rollback")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        return f"deployment {self.id} of commit {self.commit or 'unknown'} ({self.status})"


@dataclass(frozen=True)
class State:
    """The deployments of a service instance, newest first, and those Railway calls active."""

    deployments: tuple[Deployment, ...]
    active: tuple[Deployment, ...]

    @property
    def live(self) -> Deployment | None:
        """The deployment that serves; None where none does."""
        return next((one for one in self.active if one.status in SERVING), None)

    @property
    def current(self) -> Deployment | None:
        """What a rollback leaves behind: the live deployment, else the one that crashed, else the newest."""
        crashed = (one for one in self.deployments if one.status == "CRASHED")
        return self.live or next(crashed, None) or next(iter(self.deployments), None)

    def arrived(self, known: frozenset[str]) -> list[Deployment]:
        """The deployments that are not among the known ones."""
        return [one for one in self.deployments if one.id not in known]


class Client:
    """A client that holds one token; every call ends before the deadline."""

    def __init__(self, url: str, token: str, token_type: str, deadline: Deadline) -> None:
        self._url = url
        self._token_type = token_type
        self._deadline = deadline
        own = {"Project-Access-Token": token} if token_type == "project" else {"Authorization": f"Bearer {token}"}
        self._headers = own

    def query(self, operation: str, **variables: Any) -> dict[str, Any]:
        """What a read-only operation answers. Refused when Railway cannot be reached or refuses."""
        try:
            return self._data(self._send(operation, variables, changes=False))
        except (api.ConnectionFailed, api.UnexpectedStatus, api.BadAnswer) as error:
            raise Refused(f"Railway cannot be read: {error}") from None

    def change(self, operation: str, **variables: Any) -> dict[str, Any]:
        """What a mutation answers. Refused when it was not applied, MaybeApplied when that is not known."""
        try:
            return self._data(self._send(operation, variables, changes=True))
        except api.ConnectionFailed as error:
            failure = MaybeApplied if error.maybe_applied else Refused
            raise failure(f"{operation} got no answer: {error}") from None
        except api.UnexpectedStatus as error:
            failure = MaybeApplied if error.response.status >= 500 else Refused
            raise failure(f"{operation} was not accepted: {error}") from None
        except api.BadAnswer as error:
            raise MaybeApplied(f"{operation} got an unreadable answer: {error}") from None

    def _send(self, operation: str, variables: dict[str, Any], changes: bool) -> api.Response:
        body = {"query": OPERATIONS[operation], "operationName": operation, "variables": variables}
        return api.request_until_answered(
            "POST", self._url, headers=self._headers, json=body, deadline=self._deadline, changes=changes
        )

    def _data(self, response: api.Response) -> dict[str, Any]:
        answer = response.json()
        if not isinstance(answer, dict):
            raise api.BadAnswer(f"{response.source} answered with JSON that is no GraphQL answer")
        if answer.get("errors"):
            raise self._refusal(str(answer["errors"][0].get("message")))
        if not isinstance(answer.get("data"), dict):
            raise api.BadAnswer(f"{response.source} answered with neither data nor errors")
        data: dict[str, Any] = answer["data"]
        return data

    def _refusal(self, message: str) -> RollbackError:
        """Railway words an invalid token and a forbidden resource in the same way."""
        if any(words in message.lower() for words in ("not authorized", "project token not found")):
            return BadInput(
                f"token_file: Railway says {message!r}; the token must be a valid {self._token_type} token"
                " with access to this project"
            )
        return Refused(f"Railway says {message!r}")

    def locate(self, project: str | None, environment: str | None, service: str) -> Place:
        """The service of these names or ids; a project token brings project and environment along."""
        if self._token_type == "project":
            token = self.query("ProjectToken")["projectToken"]
            owner = self.query("Project", id=token["projectId"])["project"]
            _pick([owner], project or owner["id"], "project")
            own = _pick(_nodes(owner["environments"]), token["environmentId"], "environment")
            _pick([own], environment or own["id"], "environment")
        else:
            chosen = _pick(self._projects(), project or "", "project")
            owner = self.query("Project", id=chosen["id"])["project"]
            own = _pick(_nodes(owner["environments"]), environment or "", "environment")
        one = _pick(_nodes(owner["services"]), service, "service")
        plan = owner["subscriptionType"]
        return Place(owner["id"], owner["name"], own["id"], own["name"], one["id"], one["name"], plan)

    def _projects(self) -> list[dict[str, Any]]:
        projects: list[dict[str, Any]] = []
        after, more = None, True
        while more:
            page = self.query("Projects", first=_PAGE, after=after)["projects"]
            projects += _nodes(page)
            after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
        return projects


class Service:
    """The deployments of one service, and what can be done with them."""

    def __init__(self, client: Client, place: Place) -> None:
        self._client = client
        self.place = place

    def recent(self) -> State:
        """The state with the newest deployments alone: enough to follow one."""
        return self._state(_RECENT, None)[0]

    def history(self) -> State:
        """The state with as many deployments as a rollback may look back to."""
        state, after = self._state(_PAGE, None)
        while after and len(state.deployments) < _HISTORY:
            older, after = self._state(_PAGE, after)
            state = State(state.deployments + older.deployments, older.active)
        return state

    def _state(self, first: int, after: str | None) -> tuple[State, str | None]:
        """One page of the state, and the cursor of the next where there is one."""
        data = self._client.query(
            "State",
            environmentId=self.place.environment_id,
            serviceId=self.place.service_id,
            input=self.place.ids(),
            first=first,
            after=after,
        )
        page = data["deployments"]
        active = data["serviceInstance"]["activeDeployments"]
        more = page["pageInfo"]["endCursor"] if page["pageInfo"]["hasNextPage"] else None
        return State(_newest_first(_nodes(page)), _newest_first(active)), more

    def deployment(self, deployment_id: str) -> Deployment:
        """A deployment of this service, by its id."""
        found = Deployment.of(self._client.query("Deployment", id=deployment_id)["deployment"])
        if (found.environment_id, found.service_id) != (self.place.environment_id, self.place.service_id):
            at = f"{self.place.service} in {self.place.environment}"
            raise BadInput(f"deployment: {deployment_id} is not one of {at}")
        return found

    def order(self, method: str, target: Deployment) -> None:
        """Order a rollback or redeploy. Refused when it was not applied, MaybeApplied when that is not known."""
        field = {"rollback": "deploymentRollback", "redeploy": "deploymentRedeploy"}[method]
        if not self._client.change(method.capitalize(), id=target.id).get(field):
            raise Refused(f"Railway did not accept the {method} to {target}")

    def auto_deploy(self) -> bool | None:
        """Whether the next push is shipped by itself; None where Railway does not tell."""
        try:
            status = self._client.query("AutoDeploy", **self.place.ids())["serviceInstanceAutoDeployStatus"]
        except RollbackError:
            return None
        enabled: bool = status["enabled"]
        return enabled

    def switch_auto_deploy(self, enabled: bool) -> None:
        """Order it. Refused when it was not applied, MaybeApplied when that is not known."""
        self._client.change("SwitchAutoDeploy", input={**self.place.ids(), "enabled": enabled})

    def changed_variables(self, live: Deployment, target: Deployment) -> list[str] | None:
        """The names of the variables that differ between two deployments; None where Railway does not tell."""
        try:
            data = self._client.query("Variables", live=live.id, target=target.id)
        except RollbackError:
            return None
        snapshots: list[Any] = [(data[name] or {}).get("variables") for name in ("live", "target")]
        if not all(isinstance(variables, dict) for variables in snapshots):
            return None
        now, then = snapshots
        # Railway sets its own variables anew for each deployment.
        names = [name for name in {**now, **then} if not name.startswith("RAILWAY_")]
        return sorted(name for name in names if now.get(name) != then.get(name))


def retention_left(plan: str, deployment: Deployment, now: datetime) -> int | None:
    """Seconds until the image of a removed deployment is gone, by the plan's documented hours; None if unknown."""
    hours = RETENTION_HOURS.get(plan)
    if hours is None or deployment.status != "REMOVED" or deployment.status_updated is None:
        return None
    try:
        removed = datetime.strptime(deployment.status_updated, "%Y-%m-%dT%H:%M:%S.%f%z")
    except ValueError:
        return None
    return max(0, round(hours * 3600 - (now - removed.astimezone(timezone.utc)).total_seconds()))


def _nodes(connection: dict[str, Any]) -> list[dict[str, Any]]:
    return [edge["node"] for edge in connection["edges"]]


def _newest_first(nodes: list[dict[str, Any]]) -> tuple[Deployment, ...]:
    return tuple(sorted((Deployment.of(node) for node in nodes), key=lambda one: one.created, reverse=True))


def _pick(nodes: list[dict[str, Any]], wanted: str, name: str) -> dict[str, Any]:
    """The one node of this id or name, which Railway's CLI compares without regard to case."""
    found = [node for node in nodes if wanted == node["id"] or wanted.lower() == node["name"].lower()]
    if len(found) == 1:
        return found[0]
    known = ", ".join(sorted(node["name"] for node in nodes)) or "none"
    what = "is ambiguous, give its id" if found else "is not known to this token"
    raise BadInput(f"{name}: {wanted!r} {what} (there: {known})")
