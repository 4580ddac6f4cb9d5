# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sessions in Redis: which keys are in a scope, and ending exactly those."""
from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Held, Refused, Unknown
from ansible_collections.marketsage.rollback.plugins.module_utils.library import library

BATCH = 1000
IN, OUT, UNKNOWN = "in scope", "out of scope", "unknown"
_SHOWN_NAMES = 20
# From here on a number is milliseconds since 1970, below it seconds.
_MILLISECONDS_FROM = 100_000_000_000


class Session(NamedTuple):
    """What Redis has under one key. `left` is its remaining lifetime in seconds; None where it never expires."""

    content: Any
    left: float | None


class Scope:
    """Which sessions are meant: all that match `pattern`, of one user, created before a time."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.pattern = _pattern(parameters["pattern"])
        self.user = parameters["user"]
        self.user_field = parameters["user_field"]
        self.created_before = _time(parameters["created_before"]) if parameters["created_before"] else None
        self.created_field = parameters["created_field"]
        self.lifetime = parameters["lifetime"]
        self.renewed = parameters["lifetime_renewed"]
        self._matches = re.compile(_regular_expression(self.pattern), re.DOTALL)
        if self.created_before and not (self.created_field or self.lifetime):
            raise BadInput("created_before: give created_field or lifetime too; Redis does not know a key's age")

    @property
    def narrowed(self) -> bool:
        return self.user is not None or self.created_before is not None

    def matches(self, name: bytes) -> bool:
        return self._matches.fullmatch(name) is not None

    def judge(self, session: Session, now: float) -> str:
        """IN, OUT or, where the session does not tell, UNKNOWN."""
        verdicts = {self._judge_user(session), self._judge_age(session, now)}
        return OUT if OUT in verdicts else UNKNOWN if UNKNOWN in verdicts else IN

    def _judge_user(self, session: Session) -> str:
        if self.user is None:
            return IN
        if not isinstance(session.content, dict):
            return UNKNOWN
        found = _field(session.content, self.user_field)
        return IN if found is not None and str(found) == self.user else OUT

    def _judge_age(self, session: Session, now: float) -> str:
        if self.created_before is None:
            return IN
        if self.created_field:
            created = _moment(_field(session.content, self.created_field))
            return UNKNOWN if created is None else IN if created < self.created_before else OUT
        if session.left is None or session.left > self.lifetime:
            return UNKNOWN
        if now + session.left - self.lifetime < self.created_before:
            return IN
        # A session whose lifetime was renewed since may be of any age.
        return UNKNOWN if self.renewed else OUT


class Found(NamedTuple):
    """The keys of a database as one look saw them."""

    in_scope: set[bytes]
    unknown: set[bytes]
    others: set[bytes]


def _pattern(value: str) -> str:
    if not re.fullmatch(r"[\w:.{}@/-]+[\w:.{}@/*?-]*", value, re.ASCII):
        raise BadInput(
            f"pattern: {value[:80]!r} must begin with the sessions' own prefix, as sess:* does; "
            "only * and ? are special in it"
        )
    return value


def _regular_expression(pattern: str) -> bytes:
    return "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in pattern).encode()


def _time(value: str) -> float:
    created = _moment(value)
    if created is None:
        raise BadInput(f"created_before: {value[:80]!r} is not a time with its zone, such as 2026-11-24T03:15:00Z")
    return created


def _moment(value: Any) -> float | None:
    """Seconds since 1970 of an ISO 8601 text with a zone, or of a number of seconds or milliseconds."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value / 1000 if value >= _MILLISECONDS_FROM else float(value)
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(re.sub(r"Z$", "+00:00", value))
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo else None


def _field(content: Any, path: str) -> Any:
    for name in path.split("."):
        content = content.get(name) if isinstance(content, dict) else None
    return content


def kinds(names: set[bytes]) -> dict[str, int]:
    """How many keys there are of each kind: the text up to the first colon."""
    counted = Counter(_shown(name.split(b":", 1)[0] + b":") if b":" in name else "(no prefix)" for name in names)
    return dict(sorted(counted.items()))


def _shown(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def summary(names: set[bytes]) -> dict[str, Any]:
    """Number, kinds and a digest of the names."""
    digest = hashlib.sha256(b"\0".join(sorted(names))).hexdigest()
    return {"count": len(names), "kinds": kinds(names), "digest": digest}


def movement(before: set[bytes], after: set[bytes]) -> dict[str, Any]:
    """What became of keys that no command named: those that went expired or were removed by their owner."""
    gone, came = before - after, after - before
    names = [_shown(name) for name in sorted(gone)[:_SHOWN_NAMES]]
    return {
        "before": summary(before),
        "after": summary(after),
        "same": before == after,
        "gone": {"count": len(gone), "kinds": kinds(gone), "names": names},
        "came": {"count": len(came), "kinds": kinds(came)},
    }


class Store:
    """One database of a Redis server."""

    def __init__(self, client: Any, deadline: Deadline) -> None:
        self._client = client
        self._deadline = deadline

    def names(self) -> set[bytes]:
        """Every key that was there all the time of the look; SCAN also shows some of those that came or went."""
        return {name for batch in self._scan() for name in batch}

    def find(self, scope: Scope) -> Found:
        names = self.names()
        matching = sorted(name for name in names if scope.matches(name))
        verdicts = dict.fromkeys(matching, IN)
        if scope.narrowed:
            seconds, microseconds = self._client.time()
            now = seconds + microseconds / 1_000_000
            verdicts = {name: scope.judge(session, now) for name, session in self._read(matching)}
        in_scope = {name for name, verdict in verdicts.items() if verdict == IN}
        unknown = {name for name, verdict in verdicts.items() if verdict == UNKNOWN}
        return Found(in_scope, unknown, names - in_scope - unknown)

    def end(self, names: set[bytes]) -> set[bytes]:
        """Remove these keys, again where a request under way saved its session anew; return all keys then left."""
        left, remaining = names, self.names()
        for _attempt in self._deadline.attempts(0.2, longest=2):
            for batch in _batches(sorted(left)):
                self._in_time("ending sessions")
                self._client.unlink(*batch)
            remaining = self.names()
            left = names & remaining
            if not left:
                return remaining
        raise Held(
            f"{len(left)} of {len(names)} sessions are there again after they were ended",
            "Requests under way save them anew: stop traffic, then run this again.",
        )

    def flush(self) -> None:
        self._client.flushdb(asynchronous=True)

    def _scan(self) -> Iterator[list[bytes]]:
        cursor = None
        while cursor != 0:
            self._in_time("looking at the keys")
            cursor, batch = self._client.scan(cursor or 0, count=BATCH)
            yield batch

    def _read(self, names: list[bytes]) -> Iterator[tuple[bytes, Session]]:
        for batch in _batches(names):
            self._in_time("reading sessions")
            pipeline = self._client.pipeline(transaction=False)
            pipeline.mget(batch)
            for name in batch:
                pipeline.pttl(name)
            contents, *lifetimes = pipeline.execute()
            for name, content, left in zip(batch, contents, lifetimes):
                yield name, Session(_json(content), left / 1000 if left >= 0 else None)

    def _in_time(self, doing: str) -> None:
        if not self._deadline.left():
            raise Held(f"timeout: {self._deadline.seconds:g} s were over while {doing}", "Run this again: it goes on.")


def _batches(names: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(names), BATCH):
        yield names[start : start + BATCH]


def _json(content: bytes | None) -> Any:
    try:
        return json.loads(content) if content is not None else None
    except ValueError:
        return None


@contextmanager
def store(url: str, timeout: float) -> Iterator[Store]:
    """The database that `url` names; Unknown where Redis does not answer. The URL is never shown."""
    redis = library("redis", "reading sessions")
    client = redis.Redis.from_url(_checked_url(url), socket_timeout=timeout, socket_connect_timeout=min(timeout, 10))
    try:
        if client.info("cluster").get("cluster_enabled"):
            raise Refused("redis_url_file: this Redis is a cluster; sessions are ended on single servers only")
        yield Store(client, Deadline(timeout))
    except redis.RedisError as error:
        raise Unknown(f"Redis did not answer as expected: {' '.join(str(error).split())}") from None
    finally:
        client.close()


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("redis", "rediss") and parts.hostname and (parts.port or 6379) > 0
    except ValueError:
        good = False
    # A query could switch the verification of certificates off.
    if not good or parts.query or not re.fullmatch(r"/?\d*", parts.path, re.ASCII):
        raise BadInput("redis_url_file: its content is not a URL such as redis://:password@host:6379/0")
    return url
