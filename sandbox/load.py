"""A bounded load on the sandbox's front door: every answer is classified, every acknowledged row remembered."""
from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import httpx
import psycopg
from ansible_collections.marketsage.rollback.sandbox.layout import Layout

KINDS = ("good", "bad", "maintenance", "error")
PATHS = {"api": "/api/v2/contacts?take=10", "app": "/", "admin": "/"}
_CONTACTS = "/api/v2/contacts"
_WRITE_EVERY = 10
_TIMEOUT_SECONDS = 5
_BUCKET_SECONDS = 0.1
_ID_DIGITS = 12


@dataclass(frozen=True)
class Answer:
    """One request: when it was sent and answered, in seconds since the load began, and by what."""

    sent: float
    answered: float
    kind: str
    error: str = ""


@dataclass
class Record:
    """What a load has met so far."""

    started: float = field(default_factory=time.time)
    answers: list[Answer] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)

    def result(self) -> dict[str, Any]:
        """Requests by kind, errors by kind, the turning points in seconds since `started` (Unix time), a timeline."""
        counts = Counter(answer.kind for answer in self.answers)
        return {
            "started": self.started,
            "seconds": round(max((answer.answered for answer in self.answers), default=0.0), 3),
            "requests": len(self.answers),
            "kinds": {kind: counts[kind] for kind in KINDS},
            "errors": dict(Counter(answer.error for answer in self.answers if answer.error)),
            "acknowledged": len(self.acknowledged),
            "turning_points": self._turning_points(),
            "timeline": self._timeline(),
        }

    def _turning_points(self) -> dict[str, Any]:
        page = [answer.answered for answer in self.answers if answer.kind == "maintenance"]
        bad = [answer.answered for answer in self.answers if answer.kind == "bad"]
        first_page, last_bad = min(page, default=None), max(bad, default=None)
        after = max(max(page, default=0.0), last_bad or 0.0)
        good = [answer.answered for answer in self.answers if answer.kind == "good" and answer.answered > after]
        late = [answer for answer in self.answers if first_page and answer.sent > first_page]
        return {
            "first_page": first_page,
            "last_page": max(page, default=None),
            "last_bad": last_bad,
            "first_good_after": min(good, default=None),
            "bad_sent_after_page": sum(answer.kind == "bad" for answer in late),
            "errors_sent_after_page": dict(Counter(answer.error for answer in late if answer.error)),
        }

    def _timeline(self) -> list[dict[str, Any]]:
        buckets: dict[int, Counter[str]] = {}
        for answer in self.answers:
            buckets.setdefault(int(answer.answered / _BUCKET_SECONDS), Counter())[answer.kind] += 1
        return [{"at": round(index * _BUCKET_SECONDS, 1), **buckets[index]} for index in sorted(buckets)]


class Load:
    """Requests at a steady rate from a thread of its own, until told to stop or its bound is reached.

    An answer is good when it is a success of a release in `good`, bad when it comes from any other release.
    Errors are counted by HTTP status, or as refused, reset or timeout.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        rate: float = 100,
        seconds: float = 600,
        requests: int | None = None,
        services: Sequence[str] = tuple(PATHS),
        good: Iterable[str] | None = None,
    ) -> None:
        self.record = Record()
        self._front = layout.url("front")
        self._rate = rate
        self._requests = min(requests or int(rate * seconds), int(rate * seconds))
        self._services = services
        self._good = frozenset(good if good is not None else marked_good(layout))
        self._run_id = uuid.uuid4().hex[:8]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)

    def start(self) -> Load:
        self.record.started = time.time()
        self._thread.start()
        return self

    def wait(self) -> dict[str, Any]:
        """The result, once the bound is reached and every request answered."""
        self._thread.join()
        return self.record.result()

    def stop(self) -> dict[str, Any]:
        """The result, once no request is under way any more."""
        self._stopping.set()
        return self.wait()

    def __enter__(self) -> Load:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _run(self) -> None:
        begin = time.perf_counter()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
        timeout = httpx.Timeout(_TIMEOUT_SECONDS)
        async with (
            httpx.AsyncClient(base_url=self._front, limits=limits, timeout=timeout, trust_env=False) as client,
            asyncio.TaskGroup() as group,
        ):
            for number in range(self._requests):
                await asyncio.sleep(max(0.0, begin + number / self._rate - time.perf_counter()))
                if self._stopping.is_set():
                    return
                group.create_task(self._one(client, number, begin))

    async def _one(self, client: httpx.AsyncClient, number: int, begin: float) -> None:
        sent = time.perf_counter() - begin
        kind, error = await self._ask(client, number)
        self.record.answers.append(Answer(sent, time.perf_counter() - begin, kind, error))

    async def _ask(self, client: httpx.AsyncClient, number: int) -> tuple[str, str]:
        try:
            if number % _WRITE_EVERY == 0 and "api" in self._services:
                return await self._write(client, number)
            service = self._services[number % len(self._services)]
            return self._classify(await client.get(PATHS[service], headers=_host(service)))
        except httpx.TransportError as error:
            return "error", _failure(error)

    async def _write(self, client: httpx.AsyncClient, number: int) -> tuple[str, str]:
        email = f"load-{self._run_id}-{number}@load.invalid"
        row = {"email": email, "name": f"load {number}"}
        answer = await client.post(_CONTACTS, json=row, headers=_host("api"))
        if answer.status_code == httpx.codes.CREATED:
            self.record.acknowledged.append(email)
        return self._classify(answer)

    def _classify(self, answer: httpx.Response) -> tuple[str, str]:
        if answer.headers.get("x-maintenance") == "on":
            return "maintenance", ""
        release = answer.headers.get("x-release")
        if release is not None and release not in self._good:
            return "bad", ""
        if release and answer.is_success:
            return "good", ""
        return "error", str(answer.status_code)


def marked_good(layout: Layout) -> set[str]:
    """The ids of the releases of every service that are marked good."""
    marks = json.loads(layout.marks.read_text())
    return {
        commit[:_ID_DIGITS] for service in marks.values() for commit, mark in service.items() if mark["mark"] == "good"
    }


def missing_rows(layout: Layout, acknowledged: Sequence[str]) -> list[str]:
    """Of the rows whose writing was acknowledged, those that are not in the database."""
    with psycopg.connect(layout.database_url, connect_timeout=5) as database:
        rows = database.execute('SELECT email FROM "Contact" WHERE email = ANY(%s)', [list(acknowledged)]).fetchall()
    return sorted(set(acknowledged) - {email for (email,) in rows})


def _host(service: str) -> dict[str, str]:
    return {"host": f"{service}.marketsage.com"}


def _failure(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "timeout"
    return "refused" if isinstance(error, httpx.ConnectError) else "reset"
