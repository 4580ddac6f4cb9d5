"""The emulator's HTTP side: Railway's endpoint with its tokens, limits and ordered faults, and the control door."""
from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import ariadne
from ansible_collections.marketsage.rollback.sandbox.railway.edge import Edge
from ansible_collections.marketsage.rollback.sandbox.railway.faults import Fault, Faults
from ansible_collections.marketsage.rollback.sandbox.railway.graph import Context, schema
from ansible_collections.marketsage.rollback.sandbox.railway.platform import SERVICE, Platform
from graphql import FieldNode, GraphQLError, OperationDefinitionNode, parse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

_ACCOUNT_ONLY = {"me", "projects"}
_PROJECT_ONLY = {"projectToken"}
_MUTATIONS = schema.mutation_type.fields if schema.mutation_type else {}
_REQUESTS_PER_HOUR = 10_000


@dataclass(frozen=True)
class Tokens:
    account: str
    project: str

    def refusal(self, request: Request, operations: list[str]) -> str | None:
        """Why a request may not do this, in Railway's words; None when it may."""
        project_token = request.headers.get("project-access-token")
        if project_token is not None:
            if project_token != self.project:
                return "Project Token not found"
            return "Not Authorized" if _ACCOUNT_ONLY.intersection(operations) else None
        if request.headers.get("authorization") != f"Bearer {self.account}":
            return "Not Authorized"
        return "Project Token not found" if _PROJECT_ONLY.intersection(operations) else None


class DroppableProtocol(H11Protocol):
    """HTTP whose connections a fault can cut; an ASGI application cannot reach its transport."""

    transports: ClassVar[dict[Any, asyncio.Transport]] = {}

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.transports[transport.get_extra_info("peername")] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.transports.pop(self.transport.get_extra_info("peername"), None)
        super().connection_lost(exc)

    @classmethod
    def drop(cls, request: Request) -> Response:
        assert request.client
        cls.transports[tuple(request.client)].abort()
        return Response()


class Emulator:
    """The routes, and the state of the platform behind them."""

    def __init__(self, platform: Platform, faults: Faults, tokens: Tokens, edge_port: int) -> None:
        self._platform = platform
        self._faults = faults
        self._tokens = tokens
        self._edge_port = edge_port
        self._calls: Counter[str] = Counter()

    def application(self) -> Starlette:
        routes = [
            Route("/graphql/v2", self.graphql, methods=["POST"]),
            Route("/_control/deploy", self.deploy, methods=["POST"]),
            Route("/_control/faults", self.faults, methods=["POST"]),
            Route("/_control/state", self.state, methods=["GET"]),
        ]
        return Starlette(routes=routes, lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        edge = Edge(self._platform)
        listener = await asyncio.start_server(edge.serve, "127.0.0.1", self._edge_port)
        try:
            yield
        finally:
            listener.close()
            edge.close()
            await self._platform.close()

    async def graphql(self, request: Request) -> Response:
        body = await request.json()
        operations = root_fields(body)
        self._calls.update(operations)
        if message := self._tokens.refusal(request, operations):
            return self._answer(_error(message))
        fault = self._faults.take(operations)
        if fault is None:
            return self._answer(await self._execute(body))
        return await self._answer_with(fault, request, body)

    async def _answer_with(self, fault: Fault, request: Request, body: dict[str, Any]) -> Response:
        if fault.kind == "refuse":
            return self._answer(_error("Problem processing request"))
        if fault.kind == "rate_limit":
            return self._answer(_error("Too Many Requests"), 429, {"Retry-After": f"{fault.seconds:g}"})
        if fault.kind == "drop_before":
            return DroppableProtocol.drop(request)
        if fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
        result = await self._execute(body, fault if fault.kind in ("stuck", "fail") else None)
        if fault.kind == "duplicate":
            result = await self._execute(body)
        if fault.kind == "drop_after":
            return DroppableProtocol.drop(request)
        return self._answer(result)

    async def _execute(self, body: dict[str, Any], fate: Fault | None = None) -> dict[str, Any]:
        _, result = await ariadne.graphql(schema, body, context_value=Context(self._platform, fate))
        return result

    def _answer(self, result: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
        left = max(0, _REQUESTS_PER_HOUR - self._calls.total())
        limits = {
            "X-RateLimit-Limit": str(_REQUESTS_PER_HOUR),
            "X-RateLimit-Remaining": str(left),
            "X-RateLimit-Reset": "3600",
        }
        return JSONResponse(result, status, {**limits, **(headers or {})})

    async def deploy(self, request: Request) -> Response:
        body = await request.json()
        if problem := _deploy_problem(body):
            return JSONResponse({"error": problem}, 400)
        meta = {
            "commitHash": body["commitHash"],
            "commitMessage": body.get("commitMessage", ""),
            "commitAuthor": body.get("commitAuthor", "developer"),
            "branch": body.get("branch", "main"),
        }
        deployment = self._platform.deploy(Path(body["image"]), meta, body.get("variables"))
        return JSONResponse({"id": deployment.id})

    async def faults(self, request: Request) -> Response:
        try:
            self._faults.replace(await request.json())
        except (TypeError, ValueError) as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({"faults": self._faults.pending()})

    async def state(self, _: Request) -> Response:
        live = self._platform.live
        deployments = [
            {
                "id": one.id,
                "status": one.status,
                "commitHash": one.meta["commitHash"],
                "reason": one.meta["reason"],
                "diagnosis": one.diagnosis,
                "pid": one.server.pid if one.server and not one.server.exited else None,
            }
            for one in self._platform.deployments
        ]
        return JSONResponse(
            {
                "live": live.id if live else None,
                "deployments": deployments,
                "faults": self._faults.pending(),
                "calls": dict(self._calls),
                "mutations": sum(count for name, count in self._calls.items() if name in _MUTATIONS),
            }
        )


def root_fields(body: dict[str, Any]) -> list[str]:
    """The fields of Query or Mutation that a request asks for; none when it cannot be parsed."""
    try:
        document = parse(body["query"])
    except GraphQLError:
        return []
    operations = [one for one in document.definitions if isinstance(one, OperationDefinitionNode)]
    selections = [selection for one in operations for selection in one.selection_set.selections]
    return [field.name.value for field in selections if isinstance(field, FieldNode)]


def _error(message: str) -> dict[str, Any]:
    return {"errors": [{"message": message, "extensions": {"code": "INTERNAL_SERVER_ERROR"}}], "data": None}


def _deploy_problem(body: dict[str, Any]) -> str | None:
    if body.get("service") not in SERVICE.values():
        return f"service: {body.get('service')!r} is not {SERVICE['name']}"
    if not re.fullmatch(r"[0-9a-f]{40}", str(body.get("commitHash"))):
        return f"commitHash: {body.get('commitHash')!r} is not a commit of 40 hexadecimal digits"
    if not (Path(str(body.get("image"))) / "server.js").is_file():
        return f"image: {body.get('image')!r} is not a directory with a server.js"
    return None
