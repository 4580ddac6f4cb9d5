"""Railway's queries and mutations, resolved on the platform."""
from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible_collections.marketsage.rollback.sandbox.railway.faults import Fault
from ansible_collections.marketsage.rollback.sandbox.railway.platform import (
    ENVIRONMENT,
    IN_FLIGHT,
    PROJECT,
    SERVICE,
    Deployment,
    Platform,
)
from ariadne import MutationType, QueryType, load_schema_from_path, make_executable_schema
from graphql import GraphQLError, GraphQLResolveInfo

SCHEMA_FILE = Path(__file__).with_name("schema.graphql")
_PAGE = 100

query = QueryType()
mutation = MutationType()


@dataclass(frozen=True)
class Context:
    """What a request brings to its resolvers; `fate` is what a fault has ordered for the deployment that results."""

    platform: Platform
    fate: Fault | None


def _platform(info: GraphQLResolveInfo) -> Platform:
    platform: Platform = info.context.platform
    return platform


def _time(value: datetime) -> str:
    return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _find(info: GraphQLResolveInfo, deployment_id: str) -> Deployment:
    deployment = _platform(info).find(deployment_id)
    if deployment is None:
        raise GraphQLError("Deployment not found")
    return deployment


def _view(platform: Platform, deployment: Deployment) -> dict[str, Any]:
    return {
        "id": deployment.id,
        "status": deployment.status,
        "createdAt": _time(deployment.created),
        "statusUpdatedAt": _time(deployment.status_updated),
        "canRollback": platform.can_rollback(deployment),
        "canRedeploy": deployment.status not in IN_FLIGHT,
        "deploymentStopped": deployment.server is None or deployment.server.exited,
        "diagnosis": deployment.diagnosis,
        "meta": deployment.meta,
        "projectId": PROJECT["id"],
        "environmentId": ENVIRONMENT["id"],
        "serviceId": SERVICE["id"],
    }


def _connection(nodes: list[dict[str, Any]], has_next: bool = False) -> dict[str, Any]:
    edges = [{"cursor": node["id"], "node": node} for node in nodes]
    return {"edges": edges, "pageInfo": {"hasNextPage": has_next, "endCursor": edges[-1]["cursor"] if edges else None}}


def _refuse_others(**ids: str | None) -> None:
    """A forbidden and an absent resource look the same from outside."""
    own = {"project_id": PROJECT["id"], "environment_id": ENVIRONMENT["id"], "service_id": SERVICE["id"]}
    if any(value is not None and value != own[name] for name, value in ids.items()):
        raise GraphQLError("Not Authorized")


@query.field("me")
def resolve_me(*_: Any) -> dict[str, str]:
    return {"id": "operator", "email": "operator@marketsage.test"}


@query.field("projectToken")
def resolve_project_token(*_: Any) -> dict[str, str]:
    return {"projectId": PROJECT["id"], "environmentId": ENVIRONMENT["id"]}


@query.field("projects")
def resolve_projects(*_: Any, **__: Any) -> dict[str, Any]:
    return _connection([PROJECT])


@query.field("project")
def resolve_project(_: Any, __: GraphQLResolveInfo, id: str) -> dict[str, Any]:
    _refuse_others(project_id=id)
    return {
        **PROJECT,
        "environments": lambda *_, **__: _connection([ENVIRONMENT]),
        "services": lambda *_, **__: _connection([SERVICE]),
    }


@query.field("serviceInstance")
def resolve_service_instance(_: Any, info: GraphQLResolveInfo, environmentId: str, serviceId: str) -> dict[str, Any]:
    _refuse_others(environment_id=environmentId, service_id=serviceId)
    platform = _platform(info)
    latest = platform.deployments[0] if platform.deployments else None
    live = platform.live if platform.live and platform.live.status == "SUCCESS" else None
    return {
        "latestDeployment": _view(platform, latest) if latest else None,
        "activeDeployments": [_view(platform, live)] if live else [],
    }


@query.field("deployments")
def resolve_deployments(
    _: Any, info: GraphQLResolveInfo, input: dict[str, Any], first: int | None = None, after: str | None = None
) -> dict[str, Any]:
    _refuse_others(
        project_id=input.get("projectId"),
        environment_id=input.get("environmentId"),
        service_id=input.get("serviceId"),
    )
    platform = _platform(info)
    wanted, unwanted = _status_filter(input)
    nodes = [_view(platform, one) for one in platform.deployments]
    nodes = [node for node in nodes if (not wanted or node["status"] in wanted) and node["status"] not in unwanted]
    ids = [node["id"] for node in nodes]
    start = ids.index(after) + 1 if after in ids else 0
    end = start + (first or _PAGE)
    return _connection(nodes[start:end], has_next=end < len(nodes))


def _status_filter(input: dict[str, Any]) -> tuple[list[str], list[str]]:
    status = input.get("status") or {}
    return status.get("in") or [], status.get("notIn") or []


@query.field("deployment")
def resolve_deployment(_: Any, info: GraphQLResolveInfo, id: str) -> dict[str, Any]:
    return _view(_platform(info), _find(info, id))


@query.field("deploymentSnapshot")
def resolve_deployment_snapshot(_: Any, info: GraphQLResolveInfo, deploymentId: str) -> dict[str, Any]:
    return {"id": deploymentId, "variables": _find(info, deploymentId).variables}


@query.field("variables")
def resolve_variables(
    _: Any, info: GraphQLResolveInfo, projectId: str, environmentId: str, serviceId: str | None = None
) -> dict[str, str]:
    _refuse_others(project_id=projectId, environment_id=environmentId, service_id=serviceId)
    return _platform(info).variables


@query.field("serviceInstanceAutoDeployStatus")
def resolve_auto_deploy_status(
    _: Any, info: GraphQLResolveInfo, projectId: str, environmentId: str, serviceId: str
) -> dict[str, bool]:
    _refuse_others(project_id=projectId, environment_id=environmentId, service_id=serviceId)
    return {"enabled": _platform(info).auto_deploy}


@mutation.field("serviceInstanceAutoDeployUpdate")
def update_auto_deploy(_: Any, info: GraphQLResolveInfo, input: dict[str, Any]) -> dict[str, bool]:
    _refuse_others(
        project_id=input["projectId"], environment_id=input["environmentId"], service_id=input["serviceId"]
    )
    _platform(info).auto_deploy = input["enabled"]
    return {"enabled": input["enabled"]}


@mutation.field("deploymentRollback")
def roll_back(_: Any, info: GraphQLResolveInfo, id: str) -> bool:
    past = _find(info, id)
    if not _platform(info).can_rollback(past):
        raise GraphQLError("Deployment is not eligible for rollback")
    _platform(info).rollback(past, info.context.fate)
    return True


@mutation.field("deploymentRedeploy")
def redeploy(
    _: Any, info: GraphQLResolveInfo, id: str, usePreviousImageTag: bool | None = None
) -> dict[str, Any]:
    platform = _platform(info)
    return _view(platform, platform.redeploy(_find(info, id), info.context.fate))


schema = make_executable_schema(load_schema_from_path(SCHEMA_FILE), query, mutation)
