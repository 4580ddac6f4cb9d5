"""redis_sessions: what is asked for, and which sessions are in a scope."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils.sessions import IN, OUT, UNKNOWN, Scope, Session
from ansible_collections.marketsage.rollback.plugins.modules import redis_sessions

HOUR = 3600
NOON = 1_764_072_000.0
BEFORE_NOON = {"created_before": "2025-11-25T12:00:00Z"}


@pytest.fixture
def call(call_module: Callable[..., dict[str, Any]], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Call the module with a URL at which nothing answers."""
    url_file = tmp_path / "redis_url"
    url_file.write_text("redis://:secret@127.0.0.1:1/0")
    url_file.chmod(0o600)
    return lambda **arguments: call_module(redis_sessions, **{"redis_url_file": str(url_file), **arguments})


def scope(**parameters: Any) -> Scope:
    defaults = dict.fromkeys(["user", "created_before", "created_field", "lifetime"])
    return Scope({"pattern": "sess:*", "user_field": "user.email", "lifetime_renewed": True, **defaults, **parameters})


@pytest.mark.parametrize(
    "pattern", ["*", "?*", "[a-z]*", "**", "", "\\*", "sess:[ab]*", "sess: *", "se\nss:*", "*:sess"]
)
def test_a_pattern_without_a_prefix_of_its_own_is_refused(call: Any, pattern: str) -> None:
    result = call(pattern=pattern)
    assert result["exit_code"] == 2
    assert result["msg"].startswith("pattern: ")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"user": " "}, "user"),
        ({"created_before": "yesterday", "lifetime": HOUR}, "created_before"),
        ({"created_before": "2026-11-24T03:15:00", "lifetime": HOUR}, "created_before"),
        ({"created_before": "2026-11-24T03:15:00Z"}, "created_before"),
        ({"lifetime": 0}, "lifetime"),
        ({"timeout": 0}, "timeout"),
        ({"state": "flushed", "other_keys": 0, "user": "dana@example.com"}, "state"),
    ],
)
def test_input_that_cannot_be_used_is_named(call: Any, arguments: dict[str, Any], name: str) -> None:
    result = call(**arguments)
    assert result["exit_code"] == 2
    assert result["msg"].startswith(f"{name}: ")


@pytest.mark.parametrize("url", ["http://h:1", "redis://", "redis://h:x/0", "redis://h/zero", "rediss://h/0?ssl_cert_reqs=none"])
def test_a_url_that_cannot_be_used_is_not_shown(call: Any, tmp_path: Path, url: str) -> None:
    (tmp_path / "redis_url").write_text(url)
    result = call()
    assert result["msg"] == "redis_url_file: its content is not a URL such as redis://:password@host:6379/0"


def test_a_server_that_does_not_answer_is_unknown_and_its_password_not_shown(call: Any) -> None:
    result = call(timeout=1)
    assert result["exit_code"] == 30
    assert "secret" not in str(result)


@pytest.mark.parametrize(
    ("name", "matches"),
    [
        (b"sess:1", True),
        (b"sess:", True),
        (b"sess:a\nb\xff", True),
        (b"xsess:1", False),
        (b"sess", False),
        (b"SESS:1", False),
    ],
)
def test_pattern_matches_as_redis_does(name: bytes, matches: bool) -> None:
    assert scope().matches(name) is matches


def test_dots_in_a_pattern_are_dots() -> None:
    assert not scope(pattern="a.b:?").matches(b"axb:1")
    assert scope(pattern="a.b:?").matches(b"a.b:1")


@pytest.mark.parametrize(
    ("content", "verdict"),
    [
        ({"user": {"email": "dana@example.com"}}, IN),
        ({"user": {"email": "dana@example.com.evil"}}, OUT),
        ({"user": "dana@example.com"}, OUT),
        ({"cookie": {}}, OUT),
        (None, UNKNOWN),
        (["dana@example.com"], UNKNOWN),
    ],
)
def test_user_is_compared_whole_and_unreadable_content_is_unknown(content: Any, verdict: str) -> None:
    assert scope(user="dana@example.com").judge(Session(content, 10), NOON) == verdict


@pytest.mark.parametrize(
    ("created", "verdict"),
    [
        ("2025-11-25T11:59:59Z", IN),
        ("2025-11-25T13:59:59+02:00", IN),
        ("2025-11-25T12:00:00Z", OUT),
        ("2025-11-25T11:59:59", UNKNOWN),
        (NOON - 1, IN),
        ((NOON - 1) * 1000, IN),
        ((NOON + 1) * 1000, OUT),
        (True, UNKNOWN),
        (None, UNKNOWN),
    ],
)
def test_creation_from_a_field(created: Any, verdict: str) -> None:
    asked = scope(**BEFORE_NOON, created_field="meta.createdAt")
    assert asked.judge(Session({"meta": {"createdAt": created}}, None), NOON + HOUR) == verdict


@pytest.mark.parametrize(
    ("left", "renewed", "verdict"),
    [
        (HOUR - 600, True, IN),
        (HOUR - 60, True, UNKNOWN),
        (HOUR - 60, False, OUT),
        (HOUR + 1, False, UNKNOWN),
        (None, False, UNKNOWN),
    ],
)
def test_creation_from_what_is_left_of_the_lifetime(left: float | None, renewed: bool, verdict: str) -> None:
    asked = scope(**BEFORE_NOON, lifetime=HOUR, lifetime_renewed=renewed)
    assert asked.judge(Session(None, left), NOON + 300) == verdict


def test_one_condition_that_excludes_decides_though_another_is_unknown() -> None:
    asked = scope(user="dana@example.com", **BEFORE_NOON, created_field="createdAt")
    assert asked.judge(Session({"user": {"email": "kim@example.com"}}, None), NOON) == OUT
