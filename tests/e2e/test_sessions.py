"""Sessions cleared as an operator does it, while other keys are in use."""
from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import redis
from conftest import Sandbox
from test_procedures import plan_in

SAID = ("-s", "P0", "-r", "sessions were stolen")


@pytest.fixture
def store(sandbox: Sandbox) -> Iterator[redis.Redis]:
    client = redis.Redis(port=sandbox.layout.port("redis"))
    yield client
    client.close()


def keys(store: redis.Redis, prefix: str) -> set[bytes]:
    return {key for key in store.scan_iter(count=1000) if key.startswith(f"{prefix}:".encode())}


def test_one_users_sessions_end_and_every_other_key_stays(sandbox: Sandbox, store: redis.Redis) -> None:
    mine = keys(store, "sess")
    store.set("sess:dana", '{"user": {"sub": "dana@example.com"}}')
    others = set(store.scan_iter(count=1000)) - {b"sess:dana"}
    words = ("-e", "severity=P1", "-e", 'reason="sessions were stolen"', "-e", "sessions_user=dana@example.com")
    check = sandbox.playbook("sessions", *words, "--check")
    assert check.returncode == 0, check.stdout + check.stderr
    assert store.exists("sess:dana")
    assert "sessions: those sess:* of dana@example.com are ended on redis" in plan_in(check.stdout)
    done = sandbox.playbook("sessions", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not store.exists("sess:dana")
    assert others <= set(store.scan_iter(count=1000)) and mine <= keys(store, "sess")
    assert "BY HAND: [ ] JWT_SECRET" in done.stdout and "BY HAND: [ ] NEXTAUTH_SECRET" in done.stdout
    again = sandbox.playbook("sessions", *words)
    assert "DONE: nothing to change" in again.stdout
    assert not sandbox.is_locked() and not sandbox.shows_page()


def test_a_flush_has_to_name_what_else_dies(sandbox: Sandbox, store: redis.Redis) -> None:
    before = set(store.scan_iter(count=1000))
    refused = sandbox.rollback("run", "sessions", *SAID, "-e", "sessions_flush_other_keys=5")
    assert refused.returncode == 3, refused.stdout + refused.stderr
    assert "26 keys beside the sessions would die (bull: 20, cache: 1, revoked: 5), not 5" in refused.stdout
    assert set(store.scan_iter(count=1000)) == before
    done = sandbox.rollback("run", "sessions", *SAID, "-e", "sessions_flush_other_keys=26")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FLUSHDB empties redis: 26 keys that are no sessions die too" in done.stdout
    assert not keys(store, "bull") and not before & set(store.scan_iter(count=1000))


def test_two_operators_at_once_never_both_change_something(
    sandbox: Sandbox, store: redis.Redis, every_fault: bool
) -> None:
    words = ("run", "sessions", *SAID, "-e", "sessions_user=dana@example.com")
    for _round in range(200 if every_fault else 2):
        store.set("sess:dana", '{"user": {"sub": "dana@example.com"}}')
        with ThreadPoolExecutor(2) as pool:
            ended = list(pool.map(lambda _operator: sandbox.rollback(*words), range(2)))
        first, second = sorted(one.returncode for one in ended)
        assert first == 0 and second in (0, 3), [one.stdout + one.stderr for one in ended]
        assert not store.exists("sess:dana") and not sandbox.is_locked()
    kept = map(json.loads, (path.read_text() for path in (sandbox.layout.control / "runs").glob("*/outcome.json")))
    held = sorted((outcome["opened"], outcome["closed"]) for outcome in kept)
    assert held and all(closed <= opened for (_, closed), (opened, _) in pairwise(held))


BAD_SCOPE = [
    (("-e", "sessions_pattern=*"), 2, "pattern: '*'"),
    (("-e", "sessions_created_before=yesterday"), 2, "created_before: 'yesterday'"),
    (("-e", "sessions_users=dana@example.com"), 2, "extra-vars: 'sessions_users'"),
    (("-e", "sessions_user=dana@example.com", "-e", "sessions_flush_other_keys=26"), 2, "state: flushed"),
]


@pytest.mark.parametrize(("words", "code", "said"), BAD_SCOPE)
def test_a_scope_that_makes_no_sense_changes_nothing(
    running: Sandbox, words: tuple[str, ...], code: int, said: str
) -> None:
    before = set(redis.Redis(port=running.layout.port("redis")).scan_iter(count=1000))
    refused = running.rollback("run", "sessions", *SAID, *words)
    assert refused.returncode == code, refused.stdout + refused.stderr
    assert said in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
    assert set(redis.Redis(port=running.layout.port("redis")).scan_iter(count=1000)) == before
    assert not running.is_locked()
