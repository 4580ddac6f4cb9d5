# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Prometheus' HTTP API: what a query gives now, and over a time. An empty answer is no number, least of all a good one.

See https://prometheus.io/docs/prometheus/latest/querying/api/.
"""
from __future__ import annotations

import math
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from ansible_collections.marketsage.rollback.plugins.module_utils import api
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, RollbackError, Unknown

_TIMEOUT = 10.0


class Sample(NamedTuple):
    """One value, with its labels and when it was measured, in seconds since 1970."""

    labels: dict[str, str]
    time: float
    value: float


def instant(url: str, query: str, at: float | None = None, timeout: float = _TIMEOUT) -> list[Sample]:
    """The vector that a query gives now or at a time; a scalar as one sample without labels.

    A sample's time is when the query was evaluated: ask `timestamp(...)` for when something was scraped.
    """
    data = _ask(url, "query", {"query": query, **({} if at is None else {"time": f"{at:.3f}"})}, timeout)
    if data["resultType"] == "scalar":
        return _finite([({}, data["result"])])
    return _finite([(one["metric"], one["value"]) for one in data["result"]])


def over_time(
    url: str, query: str, period: tuple[float, float], step: float, timeout: float = _TIMEOUT
) -> list[list[Sample]]:
    """The series that a query gives between two times, each by its samples, `step` seconds apart."""
    asked = {"query": query, "start": period[0], "end": period[1], "step": step}
    data = _ask(url, "query_range", asked, timeout)
    return [_finite([(one["metric"], value) for value in one["values"]]) for one in data["result"]]


def single(samples: list[Sample]) -> float | None:
    """The value of a query that gives one number; None where it gave none."""
    if len(samples) > 1:
        raise BadInput(f"the query gives {len(samples)} series, expected one: aggregate it, for example with sum()")
    return samples[0].value if samples else None


def _finite(pairs: list[tuple[dict[str, str], list[Any]]]) -> list[Sample]:
    """Without the NaN that a division by no requests gives: nothing was measured."""
    samples = [Sample(labels, float(time), float(value)) for labels, (time, value) in pairs]
    return [sample for sample in samples if math.isfinite(sample.value)]


def _ask(url: str, what: str, parameters: dict[str, Any], timeout: float) -> Any:
    """The data of a query's answer; BadInput where Prometheus does not understand the query."""
    answer = _told(url, f"{what}?{urlencode(parameters)}", timeout, expect=(200, 400, 422))
    if answer["status"] != "success":
        raise BadInput(f"Prometheus refused the query {parameters['query']}: {answer['error']}")
    return answer["data"]


def targets(url: str, timeout: float = _TIMEOUT) -> list[dict[str, Any]]:
    """Every target that is scraped: labels, health, lastScrape, lastError."""
    active: list[dict[str, Any]] = _told(url, "targets?state=active", timeout)["data"]["activeTargets"]
    return active


def configured_since(url: str, timeout: float = _TIMEOUT) -> float | None:
    """Since when Prometheus runs with the configuration that it has; None where the newest was not taken."""
    told = _told(url, "status/runtimeinfo", timeout)["data"]
    if not told["reloadConfigSuccess"]:
        return None
    return max(seconds_of(told[name]) for name in ("startTime", "lastConfigTime"))


def seconds_of(text: str) -> float:
    """An RFC 3339 time, as Prometheus writes it, in seconds since 1970."""
    whole, _dot, rest = text.partition(".")
    digits = rest.rstrip("Z").partition("+")[0].partition("-")[0]
    zone = rest[len(digits) :] if rest else ""
    moment = datetime.fromisoformat((whole + zone).replace("Z", "+00:00"))
    return moment.timestamp() + float(f"0.{digits or 0}")


def _told(url: str, what: str, timeout: float, expect: tuple[int, ...] = (200,)) -> dict[str, Any]:
    """The whole answer; Unknown where there is none."""
    address = f"{url.rstrip('/')}/api/v1/{what}"
    try:
        answer: dict[str, Any] = api.request("GET", address, timeout=timeout, expect=expect).json()
    except BadInput:
        raise
    except RollbackError as error:
        raise Unknown(f"Prometheus could not be asked: {error}") from None
    return answer
