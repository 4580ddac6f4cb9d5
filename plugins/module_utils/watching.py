# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How the system does when traffic is back, against its SLA and the time before the bad release.

What is not known stays so. A watch is a dictionary: run, started, ends, counted_from and live_since (seconds since
1970; null where not known), window and step (seconds), baseline (from and to, or null) and measures. A measure has
name, shows, unit, limit, baseline, bound, value (the median), latest, trend (the last values), covered (0 to 1),
within_sla (null where not known), verdict and problem.
"""
from __future__ import annotations

from datetime import datetime, timezone
from statistics import median
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import assessment, prometheus
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, RollbackError

BETTER, WORSE, UNKNOWN = "better", "worse", "unknown"
# So many samples are taken in a window, and of one window at least a baseline is made.
STEPS = 6
_TREND = 30
# More points than that make no plot better.
_POINTS = 600

Measure = dict
Watch = dict


def begin(run: str, times: dict[str, Any], settings: dict[str, Any], url: str, seconds: int) -> Watch:
    """A watch from `times["now"]` on; `times` has also when the run closed and since when the bad release was live."""
    now, window, live_since = times["now"], settings["window"], times["live_since"]
    watch = {
        "run": run,
        "started": now,
        "ends": now + seconds,
        # Rates look back over their window: before that they tell of what was before the end of the run.
        "counted_from": max(now, times["closed"] + window),
        "live_since": live_since,
        "window": window,
        "step": window / STEPS,
        "baseline": [live_since - seconds, live_since] if live_since else None,
    }
    return {**watch, "measures": [_begun(measure, watch, settings["times"], url) for measure in settings["measures"]]}


def _begun(measure: Measure, watch: Watch, times: float, url: str) -> Measure:
    """A measure with what it was before the bad release, and what it may be because of that."""
    try:
        before = _samples(url, measure, watch["baseline"], watch["step"]) if url and watch["baseline"] else []
    except RollbackError:
        before = []
    baseline = median(sample.value for sample in before) if len(before) >= STEPS else None
    return {
        **measure,
        "limit": measure.get("above", measure.get("below")),
        "baseline": baseline,
        "bound": None if baseline is None else _bound(measure, baseline, times),
        **_unmeasured(""),
    }


def _bound(measure: Measure, baseline: float, times: float) -> float:
    if "above" in measure:
        return baseline * times + measure["slack"]
    return baseline / times - measure["slack"]


def look(watch: Watch, url: str, coverage: float, now: float) -> Watch:
    """The watch with what has been measured until now."""
    until = min(now, watch["ends"])
    return {**watch, "measures": [_looked(measure, watch, url, coverage, until) for measure in watch["measures"]]}


def _looked(measure: Measure, watch: Watch, url: str, coverage: float, until: float) -> Measure:
    start, step = watch["counted_from"], watch["step"]
    if not url:
        return {**measure, **_unmeasured("no Prometheus in the inventory (prometheus_url)")}
    if until - start < step:
        return {**measure, **_unmeasured("rates still tell of the time before the end of the run")}
    try:
        samples = _samples(url, measure, [start, until], step)
    except RollbackError as error:
        return {**measure, **_unmeasured(str(error))}
    return {**measure, **judge(measure, samples, watch, coverage, until)}


def judge(
    measure: Measure, samples: list[prometheus.Sample], watch: Watch, coverage: float, until: float
) -> dict[str, Any]:
    """What the samples since `counted_from` say of a measure."""
    if not samples:
        return _unmeasured("no fresh samples")
    start, step = watch["counted_from"], watch["step"]
    values = [sample.value for sample in samples]
    value, covered = median(values), min(1.0, len(values) / (int((until - start) / step) + 1))
    newest = [sample.value for sample in samples if sample.time > until - watch["window"] - step]
    lasting = len(newest) >= STEPS and all(_is_out(one, measure) for one in newest)
    enough = covered >= coverage and len(values) >= STEPS
    verdict, problem = UNKNOWN, ""
    if lasting or (enough and _is_out(value, measure)):
        verdict = WORSE
    elif not enough:
        problem = f"only {len(values)} fresh samples, {100 * covered:.0f} % of the time"
    elif measure["bound"] is None:
        problem = "not known how it was before the bad release"
    else:
        verdict = BETTER
    return {
        "value": value,
        "latest": values[-1],
        "trend": values[-_TREND:],
        "covered": covered,
        "within_sla": not assessment.exceeds(value, measure) if enough else None,
        "verdict": verdict,
        "problem": problem,
    }


def _is_out(value: float, measure: Measure) -> bool:
    """Whether a value is beyond the SLA, or beyond what the time before the bad release allows."""
    if assessment.exceeds(value, measure):
        return True
    bound = measure["bound"]
    return bound is not None and bool(value > bound if "above" in measure else value < bound)


def _unmeasured(problem: str) -> dict[str, Any]:
    return {
        "value": None,
        "latest": None,
        "trend": [],
        "covered": 0.0,
        "within_sla": None,
        "verdict": UNKNOWN,
        "problem": problem,
    }


def is_over(watch: Watch, url: str, now: float) -> bool:
    """Whether there is nothing to wait for: the time is up, something is worse, or there is nothing to ask."""
    return not url or now >= watch["ends"] or any(one["verdict"] == WORSE for one in watch["measures"])


def verdict(watch: Watch, health: list[dict[str, Any]], users: list[dict[str, Any]]) -> str:
    """Better, worse or unknown, from what was measured and from the checks made at the end; what users meet too."""
    measured = {one["verdict"] for one in watch["measures"]}
    needed = {one["status"] for one in health if one["required"]}
    failed = [one for one in [*health, *users] if one["required"] and one["status"] == "failed"]
    if WORSE in measured or failed:
        return WORSE
    return BETTER if measured == {BETTER} and needed == {"passed"} else UNKNOWN


def series(watch: Watch, url: str, now: float) -> dict[str, list[list[float]]]:
    """Each measure from before the bad release until now, as pairs of time and value, for plots."""
    start = (watch["baseline"] or [watch["started"]])[0]
    step = max(watch["step"], (now - start) / _POINTS)
    found = {}
    for measure in watch["measures"]:
        try:
            samples = _samples(url, measure, [start, now], step) if url else []
        except RollbackError:
            samples = []
        found[measure["name"]] = [[sample.time, sample.value] for sample in samples]
    return found


def _samples(url: str, measure: Measure, period: list[float], step: float) -> list[prometheus.Sample]:
    query = f"({measure['query']}) and on() (({measure['fresh']}) == 1)"
    found = prometheus.over_time(url, query, (period[0], period[1]), step)
    if len(found) > 1:
        raise BadInput(f"{measure['name']}: the query gives {len(found)} series, expected one")
    return found[0] if found else []


def live_since(plan: dict[str, Any], reports: dict[str, Any], opened: float) -> float | None:
    """Since when the first release that the run left had been live before it; None where nothing tells."""
    if plan.get("reverses"):
        return None
    times = []
    for part in plan["services"].values():
        left = {one["commit"] for one in part["from"]} if part["action"] == "rollback" else set()
        for host in part["hosts"]:
            for release in (reports.get(host) or {}).get("candidates", []):
                since = assessment.seconds(release.get("live_at") or release.get("created"))
                if release.get("commit") in left and since is not None and since < opened:
                    times.append(since)
    return min(times, default=None)


def brief(watch: Watch) -> str:
    """What is known now, in one line: how many measures are what, and the numbers of those that are worse."""
    counts = {kind: [one for one in watch["measures"] if one["verdict"] == kind] for kind in (BETTER, WORSE, UNKNOWN)}
    counted = ", ".join(f"{len(found)} {kind}" for kind, found in counts.items() if found)
    worse = "; ".join(f"{one['name']}: {figures(one)}" for one in counts[WORSE])
    why = ", ".join(dict.fromkeys(one["problem"] for one in counts[UNKNOWN] if one["problem"]))
    return f"{counted}{f' ({why})' if why else ''}{f'; worse: {worse}' if worse else ''}"


def lines(watch: Watch) -> list[str]:
    """What is known now, a line for each measure."""
    return [f"{one['verdict']:7} {one['name']}: {figures(one)}" for one in watch["measures"]]


def figures(measure: Measure) -> str:
    """The numbers of a measure, with what they are compared with."""
    unit = measure["unit"]
    value = "not measured" if measure["value"] is None else f"{number(measure['value'])} {unit}"
    before = "unknown" if measure["baseline"] is None else number(measure["baseline"])
    allowed = "" if measure["bound"] is None else f", {_side(measure)} {number(measure['bound'])}"
    problem = f"; {measure['problem']}" if measure["problem"] and measure["value"] is None else ""
    return f"{value} (before {before}{allowed}, SLA {number(measure['limit'])}){problem}"


def _side(measure: Measure) -> str:
    return "at most" if "above" in measure else "at least"


def number(value: float) -> str:
    """A number as a tired person reads it: three digits that count."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def moment(seconds: float) -> str:
    """A time as the journal writes it."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
