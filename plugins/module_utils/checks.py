# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Checks described as data: HTTP requests, what each must answer and what to clean up, or one of the other probes."""
from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import api, probes
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, RollbackError, Unknown
from ansible_collections.marketsage.rollback.plugins.module_utils.library import Missing
from ansible_collections.marketsage.rollback.plugins.module_utils.probes import CheckFailed, filled

_MOST_THREADS = 16

REQUEST_OPTIONS = {
    "method": {"type": "str", "default": "GET", "choices": ["GET", "POST", "PUT", "PATCH", "DELETE"]},
    "url": {"type": "str", "required": True},
    "headers": {"type": "dict", "default": {}},
    "json": {"type": "dict"},
    "status": {"type": "list", "elements": "int", "default": [200]},
    "contains": {"type": "str"},
    "equals": {"type": "dict", "default": {}},
    "save": {"type": "dict", "default": {}},
}
CHECK_OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "required": {"type": "bool", "default": True},
    "timeout": {"type": "float", "default": 5.0},
    "requests": {"type": "list", "elements": "dict", "default": [], "options": REQUEST_OPTIONS},
    "cleanup": {"type": "list", "elements": "dict", "default": [], "options": REQUEST_OPTIONS},
    **{kind: {"type": "dict", "options": options} for kind, (_probe, options) in probes.PROBES.items()},
}
PASSED, FAILED, UNKNOWN = "passed", "failed", "unknown"
_AT = re.compile("<([a-z_]+)>")


def located(check: dict[str, Any], addresses: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The check with each URL that begins with the <name> of an address at that address, whose headers are sent too."""
    there = dict(check)
    for part in ("requests", "cleanup"):
        there[part] = [at(request, addresses) for request in check[part]]
    if check.get("session"):
        there["session"] = at(check["session"], addresses)
    return there


def at(asked: dict[str, Any], addresses: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What is asked, at the address that its `url` begins with, if it does."""
    address = _address(asked["url"], addresses)
    if address is None:
        return asked
    headers = {**(address.get("headers") or {}), **asked["headers"]}
    return {**asked, "url": address["url"] + _AT.sub("", asked["url"], count=1), "headers": headers}


def _address(url: str, addresses: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The address that a URL begins with, if it begins with one's <name>."""
    named = _AT.match(url)
    if not named:
        return None
    address = addresses.get(named[1])
    if not isinstance(address, dict) or not address.get("url"):
        raise BadInput(f"addresses: {url} is asked, but addresses.{named[1]}.url does not say where")
    return address


def refuse_unknown_addresses(check: dict[str, Any], addresses: dict[str, dict[str, Any]]) -> None:
    """BadInput where a check asks at an address that is none of these."""
    for asked in _requests(check):
        _address(asked.get("url", ""), addresses)


def refuse_unknown_names(check: dict[str, Any], secrets: Iterable[str]) -> None:
    """BadInput where a check uses a <name> that is no secret and that none of its requests before saves.

    It would be sent as it is written, and refused as a wrong password or an unknown record is.
    """
    known = {*secrets, "unique"}
    for asked in [*_requests(check), *(check.get("browser") or {}).get("steps", [])]:
        if unknown := sorted(_named(asked) - known):
            what = f"<{unknown[0]}>, which is none of secret_files and is not saved by an earlier request of it"
            raise BadInput(f"checks: {check['name']!r} uses {what}")
        known |= set(asked.get("save") or {})


def _requests(check: dict[str, Any]) -> list[dict[str, Any]]:
    """All that a check may send, as it is written."""
    return [*check.get("requests", []), *check.get("cleanup", []), check.get("session") or {}]


def _named(asked: dict[str, Any]) -> set[str]:
    """The names used: anywhere in a URL behind its address and in headers, but only as the whole of what is sent."""
    url = asked.get("url", "")
    said = [_AT.sub("", url, count=1) if _AT.match(url) else url, *(asked.get("headers") or {}).values()]
    sent = [text for text in _texts([asked.get("json"), asked.get("value")]) if _AT.fullmatch(text)]
    return {name for text in [*said, *sent] for name in _AT.findall(text)}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def make_request(request: dict[str, Any], known: dict[str, str], timeout: float) -> str:
    """Make one request, remember what it saves, and return the evidence; CheckFailed where the answer is wrong."""
    response = api.request(
        request["method"],
        filled(request["url"], known),
        headers=filled(request["headers"], known),
        json=filled(request["json"], known),
        timeout=timeout,
        expect=probes.ANY_STATUS,
    )
    asked = f"{request['method']} {request['url']}"
    if response.status not in request["status"]:
        wanted = " or ".join(str(status) for status in request["status"])
        raise CheckFailed(f"{asked} answered {response.status}, expected {wanted}")
    if request["contains"] and request["contains"] not in response.body.decode(errors="replace"):
        raise CheckFailed(f"{asked} answered {response.status} without {request['contains']!r}")
    if request["equals"] or request["save"]:
        _compare_and_save(asked, response.json(), request, known)
    return f"{asked} answered {response.status}"


def _compare_and_save(asked: str, answer: Any, request: dict[str, Any], known: dict[str, str]) -> None:
    if not isinstance(answer, dict):
        raise CheckFailed(f"{asked} answered no JSON object")
    for key, wanted in request["equals"].items():
        if answer.get(key) != wanted:
            raise CheckFailed(f"{asked} says {key} is {answer.get(key)!r}, expected {wanted!r}")
    for name, key in request["save"].items():
        if key not in answer:
            raise CheckFailed(f"{asked} answered without {key!r}")
        known[name] = str(answer[key])


def run_check(check: dict[str, Any], secrets: dict[str, str]) -> dict[str, Any]:
    """Run one check to its end: name, required, status (passed, failed or unknown), evidence, seconds."""
    began = time.monotonic()
    kind = probes.kind_of(check)
    try:
        status, evidence = PASSED, _probed(kind, check, secrets)
    except (Unknown, Missing) as error:
        status, evidence = UNKNOWN, str(error)
    except RollbackError as error:
        status, evidence = FAILED, str(error)
    return {
        "name": check["name"],
        "required": check["required"],
        "status": status,
        "evidence": _without_secrets(evidence, secrets),
        "seconds": round(time.monotonic() - began, 3),
    }


def _without_secrets(text: str, secrets: dict[str, str]) -> str:
    for name, secret in secrets.items():
        text = text.replace(secret, f"<{name}>")
    return text


def _probed(kind: str, check: dict[str, Any], secrets: dict[str, str]) -> str:
    """The evidence that a check passed; raises what speaks against it."""
    if kind == "requests":
        return _request_all(check, {**secrets, "unique": uuid.uuid4().hex})
    probe, _options = probes.PROBES[kind]
    return probe(probes.Asked({"name": check["name"], **check[kind]}, secrets, check["timeout"]))


def _request_all(check: dict[str, Any], known: dict[str, str]) -> str:
    """Make the requests in their order and, once one has saved anything, those that clean up, whatever happens."""
    given = set(known)
    evidence = ""
    try:
        for request in check["requests"]:
            evidence = make_request(request, known, check["timeout"])
    except RollbackError as error:
        evidence = str(error)
        raise
    finally:
        if set(known) != given:
            _clean_up(check, known, evidence)
    return evidence


def _clean_up(check: dict[str, Any], known: dict[str, str], evidence: str) -> None:
    try:
        for request in check["cleanup"]:
            make_request(request, known, check["timeout"])
    except RollbackError as error:
        raise CheckFailed(f"{evidence}; clean-up: {error}") from None


def run_checks(checks: list[dict[str, Any]], secrets: dict[str, str]) -> list[dict[str, Any]]:
    """Run the checks at the same time; results in their order."""
    if not checks:
        return []
    with ThreadPoolExecutor(min(len(checks), _MOST_THREADS)) as pool:
        return list(pool.map(lambda check: run_check(check, secrets), checks))


def passed(results: list[dict[str, Any]]) -> bool:
    """Whether every required check passed; nothing checked is not a pass."""
    required = [result for result in results if result["required"]]
    return bool(required) and all(result["status"] == PASSED for result in required)


def gate(
    checks: list[dict[str, Any]],
    secrets: dict[str, str],
    passes: int,
    interval: float,
    deadline: Deadline,
    *,
    failure_ends: bool = False,
) -> tuple[int, list[dict[str, Any]]]:
    """Repeat the checks until they passed `passes` times in a row or the time is up; the first failure may end it too.

    Returns the length of the last unbroken row of passes and the last results.
    """
    in_a_row = 0
    results: list[dict[str, Any]] = []
    for _attempt in deadline.attempts(interval):
        results = run_checks(checks, secrets)
        in_a_row = in_a_row + 1 if passed(results) else 0
        if in_a_row == passes or (failure_ends and not in_a_row):
            break
    return in_a_row, results
