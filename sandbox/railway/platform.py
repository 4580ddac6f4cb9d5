"""Deployments and their life: built, started, checked, switched to, drained, removed, restored."""
from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ansible_collections.marketsage.rollback.sandbox.railway.faults import Fault, Faults
from ansible_collections.marketsage.rollback.sandbox.railway.process import Server

PROJECT = {"id": str(uuid.uuid5(uuid.NAMESPACE_DNS, "project")), "name": "marketsage", "subscriptionType": "pro"}
ENVIRONMENT = {"id": str(uuid.uuid5(uuid.NAMESPACE_DNS, "environment")), "name": "production"}
SERVICE = {"id": str(uuid.uuid5(uuid.NAMESPACE_DNS, "service")), "name": "marketsage-frontend"}

IN_FLIGHT = ("INITIALIZING", "BUILDING", "DEPLOYING")
_BUILD_SECONDS = 0.2


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(eq=False)
class Deployment:
    """An image with the variables of its time."""

    image: Path
    meta: dict[str, Any]
    variables: dict[str, str]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "INITIALIZING"
    created: datetime = field(default_factory=_now)
    status_updated: datetime = field(default_factory=_now)
    diagnosis: str | None = None
    server: Server | None = None
    was_live: bool = False
    relays: int = 0

    def enter(self, status: str, diagnosis: str | None = None) -> None:
        self.status, self.status_updated, self.diagnosis = status, _now(), diagnosis

    def environment(self) -> dict[str, str]:
        """What its process finds in its environment."""
        return {
            **self.variables,
            "RAILWAY_DEPLOYMENT_ID": self.id,
            "RAILWAY_GIT_COMMIT_SHA": self.meta["commitHash"],
        }


class Platform:
    """One project, one environment, one service and its deployments, newest first."""

    def __init__(
        self, logs: Path, drain_seconds: float, retention_seconds: float, health_seconds: float, faults: Faults
    ) -> None:
        self.logs = logs
        self.drain_seconds = drain_seconds
        self.retention_seconds = retention_seconds
        self.health_seconds = health_seconds
        self.faults = faults
        self.deployments: list[Deployment] = []
        self.live: Deployment | None = None
        self.variables: dict[str, str] = {}
        self.auto_deploy = True
        self._tasks: set[asyncio.Task[None]] = set()

    def find(self, deployment_id: str) -> Deployment | None:
        return next((one for one in self.deployments if one.id == deployment_id), None)

    def can_rollback(self, deployment: Deployment) -> bool:
        """Whether the image of a deployment that was once live is still kept."""
        retention = timedelta(seconds=self.faults.retention(self.retention_seconds))
        removed = deployment.was_live and deployment.status in ("REMOVING", "REMOVED")
        return removed and _now() - deployment.status_updated < retention

    def deploy(self, image: Path, meta: dict[str, Any], variables: dict[str, str] | None) -> Deployment:
        """Ship a new image; `variables` replace those of the service."""
        if variables is not None:
            self.variables = variables
        return self._begin(Deployment(image, {**meta, "reason": "deploy"}, dict(self.variables)), builds=True)

    def rollback(self, past: Deployment, fate: Fault | None) -> Deployment:
        """A new deployment of a past one's image and variables; the service's own variables stay."""
        meta = {**past.meta, "reason": "rollback"}
        return self._begin(Deployment(past.image, meta, dict(past.variables)), builds=False, fate=fate)

    def redeploy(self, past: Deployment, fate: Fault | None) -> Deployment:
        """A new deployment built again from a past one's commit, with the variables of that time."""
        meta = {**past.meta, "reason": "redeploy"}
        return self._begin(Deployment(past.image, meta, dict(past.variables)), builds=True, fate=fate)

    def _begin(self, deployment: Deployment, builds: bool, fate: Fault | None = None) -> Deployment:
        self.deployments.insert(0, deployment)
        self._spawn(self._bring_up(deployment, builds, fate))
        return deployment

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bring_up(self, deployment: Deployment, builds: bool, fate: Fault | None) -> None:
        if builds:
            deployment.enter("BUILDING")
            await asyncio.sleep(_BUILD_SECONDS)
        deployment.enter("DEPLOYING")
        if fate:
            await self._meet(deployment, fate)
            return
        log = self.logs / f"{deployment.id}.log"
        deployment.server = server = await Server.start(deployment.image, deployment.environment(), log)
        if await server.becomes_healthy(self.health_seconds):
            self._switch_to(deployment)
        elif server.exited:
            deployment.enter("CRASHED", f"the process exited with {server.process.returncode} before it was healthy")
        else:
            deployment.enter("FAILED", f"the health check did not answer 200 within {self.health_seconds:g} s")
            await server.stop()

    async def _meet(self, deployment: Deployment, fate: Fault) -> None:
        """A stuck deployment stays as it is; a failing one fails."""
        if fate.kind == "fail":
            await asyncio.sleep(fate.seconds)
            deployment.enter("FAILED", "the health check did not answer 200")

    def _switch_to(self, deployment: Deployment) -> None:
        before = self.live
        if before and before.created > deployment.created:
            self._spawn(self._retire(deployment))
            return
        self.live = deployment
        deployment.was_live = True
        deployment.enter("SUCCESS")
        self._spawn(self._watch(deployment))
        if before:
            self._spawn(self._retire(before))

    async def _watch(self, deployment: Deployment) -> None:
        assert deployment.server
        await deployment.server.process.wait()
        if deployment.status == "SUCCESS":
            deployment.enter("CRASHED", f"the process exited with {deployment.server.process.returncode}")

    async def _retire(self, deployment: Deployment) -> None:
        """Let the requests under way finish, then end the process."""
        deployment.enter("REMOVING")
        end = asyncio.get_running_loop().time() + self.drain_seconds
        while deployment.relays and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)
        if deployment.server:
            await deployment.server.stop()
        deployment.enter("REMOVED")

    async def close(self) -> None:
        """End every process."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*(one.server.stop() for one in self.deployments if one.server))
