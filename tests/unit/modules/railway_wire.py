"""A scripted Railway: the answers a test expects to be asked for, in their order."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import api
from graphql import build_schema, parse, validate

Answer = Any
SCHEMA = build_schema((Path(__file__).parents[3] / "sandbox/railway/schema.graphql").read_text())
TOKEN = "the-token-that-nobody-may-see"
GOOD, OLDER, BAD = "a" * 40, "b" * 40, "c" * 40
TIMES = {"old": "2026-11-20T08:00:00.000Z", "good": "2026-11-21T08:00:00.000Z", "bad": "2026-11-22T08:00:00.000Z"}


def node(name: str, commit: str | None, status: str = "REMOVED", **more: Any) -> dict[str, Any]:
    """A deployment as Railway answers it; names sort by their time."""
    return {
        "id": name,
        "status": status,
        "createdAt": TIMES.get(name, "2026-11-23T08:00:00.000Z"),
        "statusUpdatedAt": "2026-11-22T08:01:00.000Z",
        "canRollback": status == "REMOVED",
        "canRedeploy": True,
        "diagnosis": None,
        "meta": {"commitHash": commit, "commitMessage": f"Release {name}", "branch": "main", "commitAuthor": "dev"},
        "environmentId": "e1",
        "serviceId": "s1",
        **more,
    }


def edges(*nodes: dict[str, Any], after: str | None = None) -> dict[str, Any]:
    info = {"hasNextPage": after is not None, "endCursor": after}
    return {"edges": [{"node": one} for one in nodes], "pageInfo": info}


def state_of(*nodes: dict[str, Any], live: str | None, after: str | None = None) -> dict[str, Any]:
    active = [one for one in nodes if one["id"] == live]
    return {"serviceInstance": {"activeDeployments": active}, "deployments": edges(*nodes, after=after)}


PROJECT = {
    "id": "p1",
    "name": "marketsage",
    "subscriptionType": "pro",
    "environments": edges({"id": "e1", "name": "production"}, {"id": "e2", "name": "staging"}),
    "services": edges({"id": "s1", "name": "marketsage-frontend"}, {"id": "s2", "name": "docs"}),
}
BAD_LIVE, GOOD_GONE, OLD_GONE = node("bad", BAD, "SUCCESS"), node("good", GOOD), node("old", OLDER)
BEFORE = state_of(BAD_LIVE, GOOD_GONE, OLD_GONE, live="bad")
AFTER = state_of(node("new", GOOD, "SUCCESS"), node("bad", BAD), GOOD_GONE, OLD_GONE, live="new")
UNDER_WAY = state_of(node("new", GOOD, "DEPLOYING"), BAD_LIVE, GOOD_GONE, OLD_GONE, live="bad")
LOCATE = [
    ("ProjectToken", {"projectToken": {"projectId": "p1", "environmentId": "e1"}}),
    ("Project", {"project": PROJECT}),
]
NOW, THEN = {"A": "1", "B": "1", "RAILWAY_X": "1"}, {"A": "2", "B": "1"}
REPORT = [
    ("Variables", {"live": {"variables": NOW}, "target": {"variables": THEN}}),
    ("AutoDeploy", {"serviceInstanceAutoDeployStatus": {"enabled": True}}),
]
ACCEPTED = {"deploymentRollback": True}


def lost() -> api.ConnectionFailed:
    return api.ConnectionFailed("POST https://backboard.railway.com/graphql/v2: reset", maybe_applied=True)


class Wire:
    """The transport: every call must be the next of the script, and the whole script must be called."""

    def __init__(self, script: list[tuple[str, Answer]]) -> None:
        self.script = script
        self.sent: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}

    def request(self, method: str, url: str, *, headers: Any, json: Any, timeout: float) -> api.Response:
        assert (method, url) == ("POST", "https://backboard.railway.com/graphql/v2")
        assert validate(SCHEMA, parse(json["query"])) == []
        self.headers = headers
        self.sent.append(json)
        return self.respond(json["operationName"], json["variables"])

    def respond(self, operation: str, variables: dict[str, Any]) -> api.Response:
        assert self.script, f"{operation} was not expected any more"
        expected, answer = self.script.pop(0)
        assert operation == expected
        return reply(answer)


def reply(answer: Answer) -> api.Response:
    if isinstance(answer, Exception):
        raise answer
    body = answer if "errors" in answer else {"data": answer}
    return api.Response(200, {}, json.dumps(body).encode(), "POST")
