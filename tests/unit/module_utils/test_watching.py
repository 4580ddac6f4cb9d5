"""Whether it stays well after a run: judged by numbers, and never well where there are none."""
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils import criteria, watching
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Unknown
from ansible_collections.marketsage.rollback.plugins.module_utils.prometheus import Sample

START, STEP, WINDOW = 1_000_000.0, 10, 60
ERRORS = {
    "name": "Error rate", "shows": "errors", "query": "errors", "fresh": "fresh", "above": 5, "slack": 0.5, "unit": "%"
}  # fmt: skip
SERVERS = {**ERRORS, "name": "Servers", "shows": "health", "query": "servers", "above": None, "below": 1, "slack": 0}
del SERVERS["above"]
SETTINGS = {"window": WINDOW, "times": 1.5, "measures": [ERRORS]}
TIMES = {"now": START, "closed": START - 600, "live_since": START - 3600}
URL = "http://127.0.0.1:9090"
PASSED = {"name": "API", "status": "passed", "required": True, "evidence": "200"}
PLAN = {"services": {"backend": {"action": "rollback", "hosts": ["api-1"], "from": [{"commit": "b" * 40}]}}}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What Prometheus has, by time from the start; the baseline is before it."""
    known: dict[str, Any] = {"before": 0.2, "after": lambda at: 0.2}

    def over_time(url: str, query: str, period: tuple[float, float], step: float) -> list[list[Sample]]:
        known["query"] = query
        if "error" in known:
            raise known["error"]
        times = [period[0] + number * step for number in range(int((period[1] - period[0]) / step) + 1)]
        values = [(at, known["before"] if at < START else known["after"](at - START)) for at in times]
        samples = [Sample({}, at, value) for at, value in values if value is not None]
        return [samples] if samples else []

    monkeypatch.setattr(watching.prometheus, "over_time", over_time)
    return known


def watched(until: float = 600, settings: Any = SETTINGS, times: Any = TIMES, url: str = URL) -> watching.Watch:
    begun = watching.begin("20261124T031500Z-backend-3f9a", times, settings, url, 600)
    return watching.look(begun, url, 0.9, START + until)


def only(watch: watching.Watch) -> dict[str, Any]:
    (measure,) = watch["measures"]
    return dict(measure)


def test_as_good_as_before_the_bad_release_is_better_with_its_numbers(measured: dict[str, Any]) -> None:
    watch = watched()
    one = only(watch)
    assert (one["verdict"], one["value"], one["baseline"], one["within_sla"]) == ("better", 0.2, 0.2, True)
    assert one["bound"] == pytest.approx(0.8)
    assert watching.verdict(watch, [PASSED], []) == "better"
    assert measured["query"] == "(errors) and on() ((fresh) == 1)"
    assert watching.lines(watch) == ["better  Error rate: 0.2 % (before 0.2, at most 0.8, SLA 5)"]


def test_a_slow_regression_within_the_sla_is_worse_once_it_lasts(measured: dict[str, Any]) -> None:
    measured["after"] = lambda at: 0.2 + at / 300
    assert only(watched(until=180))["verdict"] == "better"
    assert not watching.is_over(watched(until=180), URL, START + 180)
    late = watched(until=300)
    assert (only(late)["verdict"], only(late)["within_sla"]) == ("worse", True)
    assert watching.is_over(late, URL, START + 300)
    assert watching.verdict(late, [PASSED], []) == "worse"


def test_a_peak_shorter_than_a_window_is_not_worse(measured: dict[str, Any]) -> None:
    measured["after"] = lambda at: 50.0 if 100 <= at < 140 else 0.2
    assert {only(watched(until=at))["verdict"] for at in (140, 150, 600)} == {"better"}


def test_fewer_servers_than_before_are_worse_although_one_is_enough_for_the_sla(measured: dict[str, Any]) -> None:
    measured["before"], measured["after"] = 2, lambda at: 1
    assert only(watched(settings={**SETTINGS, "measures": [SERVERS]}))["verdict"] == "worse"


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"after": lambda at: None}, "no fresh samples"),
        ({"after": lambda at: 0.2 if at < 300 else None}, "only 30 fresh samples, 49 % of the time"),
        ({"before": None}, "not known how it was before the bad release"),
        ({"error": Unknown("Prometheus could not be asked: refused")}, "Prometheus could not be asked: refused"),
    ],
)
def test_what_is_missing_is_never_better(measured: dict[str, Any], known: dict[str, Any], said: str) -> None:
    measured.update(known)
    watch = watched()
    assert (only(watch)["verdict"], only(watch)["problem"]) == ("unknown", said)
    assert watching.verdict(watch, [PASSED], []) == "unknown"


def test_beyond_the_sla_is_worse_although_the_time_before_is_not_known(measured: dict[str, Any]) -> None:
    measured["before"], measured["after"] = None, lambda at: 7
    assert (only(watched())["verdict"], only(watched())["within_sla"]) == ("worse", False)


def test_rates_of_the_time_before_the_end_of_the_run_do_not_count(measured: dict[str, Any]) -> None:
    measured["after"] = lambda at: 90.0 if at < 60 else 0.2
    watch = watched(times={**TIMES, "closed": START})
    assert watch["counted_from"] == START + WINDOW
    assert only(watch)["verdict"] == "better"
    assert only(watched(until=30, times={**TIMES, "closed": START}))["problem"].startswith("rates still tell")


def test_without_prometheus_there_is_nothing_to_wait_for_and_nothing_is_said_to_be_well() -> None:
    watch = watched(until=1, url="")
    assert watching.is_over(watch, "", START + 1)
    assert watching.verdict(watch, [PASSED], [PASSED]) == "unknown"


def test_a_failed_check_is_worse_and_one_that_is_not_made_is_unknown(measured: dict[str, Any]) -> None:
    watch = watched()
    failed = {**PASSED, "status": "failed"}
    assert watching.verdict(watch, [PASSED, failed], []) == "worse"
    assert watching.verdict(watch, [PASSED], [failed]) == "worse"
    assert watching.verdict(watch, [], []) == "unknown"
    assert watching.verdict(watch, [PASSED, {**PASSED, "status": "unknown"}], []) == "unknown"
    assert watching.verdict(watch, [PASSED, {**failed, "required": False}], []) == "better"


def test_a_query_that_gives_several_series_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching.prometheus, "over_time", lambda *_: [[Sample({}, 1, 1)], [Sample({}, 1, 2)]])
    with pytest.raises(BadInput, match="Error rate: the query gives 2 series"):
        watching._samples(URL, ERRORS, [START, START + 1], 1)


def test_the_bad_release_was_live_since_the_host_says_so() -> None:
    candidates = [{"commit": "b" * 40, "live_at": "2026-11-24T03:00:00Z"}, {"commit": "a" * 40}]
    opened = 1795490100.0
    assert watching.live_since(PLAN, {"api-1": {"candidates": candidates}}, opened) == 1795489200.0
    assert watching.live_since(PLAN, {}, opened) is None
    undo = {**PLAN, "reverses": {"how": "undo"}}
    assert watching.live_since(undo, {"api-1": {"candidates": candidates}}, opened) is None


def test_without_a_watch_the_criteria_are_unknown_but_for_data_that_the_run_never_touched() -> None:
    answers = {one["name"]: one["answer"] for one in criteria.answered(PLAN, [], None)}
    assert list(answers.values()) == ["unknown", "unknown", "unknown", "yes", "unknown"]


def test_each_criterion_has_its_own_evidence(measured: dict[str, Any]) -> None:
    latency = {**ERRORS, "name": "Half", "shows": "latency", "above": 1}
    measured["after"] = lambda at: 2
    watch = watched(settings={**SETTINGS, "measures": [ERRORS, latency]})
    record = {**watch, "health": [PASSED], "users": [{**PASSED, "name": "Paths", "status": "unknown"}]}
    answers = criteria.answered(PLAN, [], record)
    assert [one["answer"] for one in answers] == ["yes", "no", "no", "yes", "unknown"]
    assert answers[2]["evidence"] == "Half: 2 % (before 0.2, at most 0.8, SLA 1)"


def entry(step: str, kind: str = "outcome", **data: Any) -> dict[str, Any]:
    return {"step": step, "kind": kind, "data": data}


SCHEMA = {"services": {"backend": {"action": "rollback", "schema": {"rollback": True}}}}
RECOVERY = {"services": {}, "recovery": {"action": "restore"}}
COLUMN = {"table": "public.Contact", "column": "phone", "rows": 25, "counted": True, "restored": 25, "reason": ""}
LOSS = {"known": True, "why": "", "rows": 3, "tables": {}}


@pytest.mark.parametrize(
    ("plan", "entries", "answer", "said"),
    [
        (SCHEMA, [entry("schema.rolled_back", archive="a1", archived=[COLUMN])], "yes", "25 rows of public"),
        (SCHEMA, [entry("schema.rolled_back", "intent")], "unknown", "not on record what was archived"),
        (SCHEMA, [entry("schema.rolled_back", archive="a1")], "unknown", "its rows are not on record"),
        (PLAN, [entry("schema.deployed", restored=[COLUMN])], "yes", "back: 25 rows of public"),
        (PLAN, [entry("schema.deployed", restored=[{**COLUMN, "reason": "is gone"}])], "yes", "still in the archive"),
        (RECOVERY, [entry("database.verified", loss=LOSS)], "no", "lost: 3 rows"),
        (RECOVERY, [entry("database.verified", loss={**LOSS, "rows": 0})], "yes", "lost: 0 rows"),
        (RECOVERY, [entry("database.verified", loss={**LOSS, "known": False, "why": "x"})], "unknown", "unknown"),
        (RECOVERY, [], "unknown", "was not counted"),
        (PLAN, [entry("redis_flushed", keys=0)], "no", "flushed"),
    ],
)
def test_no_data_loss_is_computed_from_what_the_record_counts(
    plan: dict[str, Any], entries: list[dict[str, Any]], answer: str, said: str
) -> None:
    told = criteria.data(plan, entries)
    assert told[0] == answer
    assert said in told[1]
