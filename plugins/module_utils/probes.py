# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The kinds of checks beside HTTP requests: each returns its evidence, or says that it failed or cannot be known."""
from __future__ import annotations

import contextlib
import http.cookies
import socket
import ssl
import time
import urllib.parse
from typing import Any, Callable, NamedTuple

from ansible_collections.marketsage.rollback.plugins.module_utils import api, browser, prisma, prometheus, validate
from ansible_collections.marketsage.rollback.plugins.module_utils import command as configured
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Held, RollbackError, Unknown
from ansible_collections.marketsage.rollback.plugins.module_utils.files import read_secret
from ansible_collections.marketsage.rollback.plugins.module_utils.library import library

_SECONDS_A_DAY = 86400
# What Redis says instead of the seconds that a key has left.
_NO_SUCH_KEY, _NO_EXPIRY = -2, -1


ANY_STATUS = tuple(range(100, 600))


class CheckFailed(RollbackError):
    """The answer is another than the check expects."""


class Asked(NamedTuple):
    """What a probe gets: its own parameters, the secrets by name, and the seconds that it has."""

    wanted: dict[str, Any]
    secrets: dict[str, str]
    timeout: float


def filled(value: Any, known: dict[str, str]) -> Any:
    """`value` with each <name> replaced by what a secret or an earlier answer gave for it."""
    if isinstance(value, dict):
        return {key: filled(item, known) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, known) for item in value]
    if isinstance(value, str):
        for name, text in known.items():
            value = value.replace(f"<{name}>", text)
    return value


def sql(asked: Asked) -> str:
    """A query, in a transaction in which PostgreSQL refuses every write; its first value is compared as text."""
    where = prisma.database(read_secret(asked.wanted["url_file"], "sql.url_file"), "sql.url_file")
    with prisma.read_only(where, asked.timeout) as cursor:
        cursor.execute(asked.wanted["query"])
        row = cursor.fetchone()
    found = None if row is None else str(row[0])
    if found != asked.wanted["equals"]:
        raise CheckFailed(f"the query gives {found!r}, expected {asked.wanted['equals']!r}")
    return f"the query gives {found!r}"


def redis(asked: Asked) -> str:
    """Redis answers and, where a pattern is given, has at least so many keys of it, counted by SCAN."""
    client_library = library("redis", "checking Redis")
    keys, least = asked.wanted["keys"], asked.wanted["at_least"]
    url = read_secret(asked.wanted["url_file"], "redis.url_file")
    try:
        with contextlib.closing(client_library.Redis.from_url(url, socket_timeout=asked.timeout)) as client:
            client.ping()
            if keys is None:
                return "Redis answers"
            count = sum(1 for _key in client.scan_iter(keys, count=1000))
    except client_library.RedisError as error:
        raise CheckFailed(f"Redis does not answer: {error}") from None
    if count < least:
        raise CheckFailed(f"{count} keys match {keys}, expected at least {least}")
    return f"{count} keys match {keys}"


def session(asked: Asked) -> str:
    """A login leaves its session in Redis, under the prefix of sessions and for long enough."""
    wanted, client_library = asked.wanted, library("redis", "checking sessions")
    url = read_secret(wanted["url_file"], "session.url_file")
    key = wanted["prefix"] + _logged_in(wanted, asked)
    try:
        with contextlib.closing(client_library.Redis.from_url(url, socket_timeout=asked.timeout)) as client:
            left = client.ttl(key)
    except client_library.RedisError as error:
        raise CheckFailed(f"Redis does not answer: {error}") from None
    if left == _NO_SUCH_KEY:
        raise CheckFailed(f"a login leaves no session under {wanted['prefix']}")
    if left != _NO_EXPIRY and left < wanted["seconds"]:
        raise CheckFailed(f"the session of a login ends in {left} s, expected at least {wanted['seconds']}")
    return f"the session of a login is kept under {wanted['prefix']}"


def _logged_in(wanted: dict[str, Any], asked: Asked) -> str:
    """The id of the session that a login begins, from its signed cookie (s:ID.SIGNATURE)."""
    answer = api.request(
        "POST", wanted["url"], headers=filled(wanted["headers"], asked.secrets),
        json=filled(wanted["json"], asked.secrets), timeout=asked.timeout, expect=ANY_STATUS,
    )
    cookie = http.cookies.SimpleCookie(answer.headers.get("set-cookie", "")).get(wanted["cookie"])
    if cookie is None:
        raise CheckFailed(f"POST {wanted['url']} answered {answer.status} without a cookie {wanted['cookie']}")
    return urllib.parse.unquote(cookie.value)[len("s:") :].rpartition(".")[0]


def metric(asked: Asked) -> str:
    """A query to Prometheus that gives one number, within bounds. No number is unknown, never well."""
    query, least, most = (asked.wanted[name] for name in ("query", "at_least", "at_most"))
    if not asked.wanted["url"]:
        raise Unknown("no Prometheus is configured (prometheus_url)")
    url = validate.url(asked.wanted["url"], "prometheus.url")
    value = prometheus.single(prometheus.instant(url, query, timeout=asked.timeout))
    if value is None:
        raise Unknown(f"Prometheus has no value for {query}")
    if least is not None and value < least:
        raise CheckFailed(f"{query} is {value:g}, expected at least {least:g}")
    if most is not None and value > most:
        raise CheckFailed(f"{query} is {value:g}, expected at most {most:g}")
    return f"{query} is {value:g}"


def certificate(asked: Asked) -> str:
    """What the server shows for a host name is valid for it, and for at least so many days more."""
    host, port = asked.wanted["host"], asked.wanted["port"]
    context = ssl.create_default_context(cafile=asked.wanted["ca_file"])
    try:
        line = socket.create_connection((asked.wanted["address"] or host, port), timeout=asked.timeout)
        with line, context.wrap_socket(line, server_hostname=host) as secure:
            shown = secure.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        raise CheckFailed(f"the certificate for {host} is not valid: {error.verify_message}") from None
    except OSError as error:
        raise CheckFailed(f"no TLS connection to {host}: {error}") from None
    days = int((ssl.cert_time_to_seconds(str(shown["notAfter"])) - time.time()) // _SECONDS_A_DAY)
    if days < asked.wanted["days"]:
        raise CheckFailed(f"the certificate for {host} ends in {days} days, expected at least {asked.wanted['days']}")
    return f"the certificate for {host} is valid for {days} days"


def command(asked: Asked) -> str:
    """A command without a shell; secrets go into its environment."""
    argv, wanted = asked.wanted["argv"], asked.wanted["code"]
    environment = configured.with_variables({**asked.wanted["environment"], **asked.secrets})
    try:
        code, output = configured.execute(
            "command", argv, asked.wanted["chdir"] or "/", environment, Deadline(asked.timeout)
        )
    except Held as error:
        raise Unknown(str(error)) from None
    if code != wanted:
        raise CheckFailed(f"{argv[0]} exited with {code}, expected {wanted}: {configured.tail(output)}")
    return f"{argv[0]} exited with {code}"


def look(asked: Asked) -> str:
    """A path that a user takes, in a real browser."""
    complaints, shot = browser.walk(asked.wanted, asked.secrets, asked.timeout)
    shown = f"; screenshot: {shot}" if shot else ""
    if complaints:
        raise CheckFailed(f"{'; '.join(complaints)}{shown}")
    return f"{len(asked.wanted['steps'])} steps in a browser, no error{shown}"


STRING = {"type": "str"}
# By the key that says of which kind a check is: what makes it, and its parameters.
PROBES: dict[str, tuple[Callable[[Asked], str], dict[str, Any]]] = {
    "sql": (
        sql,
        {
            "url_file": {"type": "path", "required": True},
            "query": {"type": "str", "required": True},
            "equals": {"type": "str", "required": True},
        },
    ),
    "redis": (
        redis,
        {
            "url_file": {"type": "path", "required": True},
            "keys": {"type": "str", "no_log": False},
            "at_least": {"type": "int", "default": 0},
        },
    ),
    "session": (
        session,
        {
            "url": {"type": "str", "required": True},
            "headers": {"type": "dict", "default": {}},
            "json": {"type": "dict", "required": True},
            "cookie": {"type": "str", "required": True},
            "url_file": {"type": "path", "required": True},
            "prefix": {"type": "str", "default": "sess:"},
            "seconds": {"type": "int", "default": 60},
        },
    ),
    "prometheus": (
        metric,
        {"url": STRING, "query": {"type": "str", "required": True}, "at_least": {"type": "float"},
         "at_most": {"type": "float"}},
    ),
    "certificate": (
        certificate,
        {
            "host": {"type": "str", "required": True},
            "port": {"type": "int", "default": 443},
            "address": STRING,
            "ca_file": {"type": "path"},
            "days": {"type": "int", "default": 7},
        },
    ),
    "command": (
        command,
        {
            "argv": {"type": "list", "elements": "str", "required": True},
            "chdir": {"type": "path"},
            "environment": {"type": "dict", "default": {}},
            "code": {"type": "int", "default": 0},
        },
    ),
    "browser": (look, browser.OPTIONS),
}  # fmt: skip


def kind_of(check: dict[str, Any]) -> str:
    """The one kind that a check is of: requests, or a key of PROBES."""
    kinds = [kind for kind in ("requests", *PROBES) if check.get(kind)]
    if len(kinds) != 1:
        known, has = ", ".join(("requests", *PROBES)), ", ".join(kinds) or "none"
        raise BadInput(f"checks: {check['name']!r} must have exactly one of {known}; it has {has}")
    return kinds[0]
