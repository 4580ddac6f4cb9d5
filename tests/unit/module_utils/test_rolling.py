from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils import planning, rolling
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Held, Refused

HOSTS = [f"api-{number}" for number in range(1, 11)]
POLICY = {"first": 1, "batch": 4, "keep_serving": 50, "max_failed": 20, "drain_timeout": 30}
RELEASES = {
    name: {"release": letter * 12, "commit": letter * 40, "ref": name}
    for name, letter in (("new", "c"), ("good", "b"), ("old", "a"))
}
MARKS = {"backend": {"b" * 40: {"mark": "good"}}}


def balancer(*out: str, **report: Any) -> dict[str, dict[str, Any]]:
    servers = {host: server("maint" if host in out else "ready") for host in HOSTS}
    return {"haproxy": {"enabled": False, "servers": servers, **report}}


def server(admin: str, operational: str = "running") -> dict[str, str]:
    return {"admin": admin, "operational": operational}


def fleet(balancers: dict[str, dict[str, Any]] | None = None, **policy: int) -> rolling.Fleet:
    return rolling.Fleet({**POLICY, **policy}, {}, balancer() if balancers is None else balancers)


def part(hosts: list[str], **more: Any) -> dict[str, Any]:
    return {"hosts": hosts, "stop_traffic": True, **more}


def test_the_first_host_goes_alone_and_the_others_in_batches() -> None:
    traffic = rolling.plan_traffic(part(HOSTS), True, fleet())
    assert traffic["stop_traffic"] is False
    assert traffic["rolling"] == {
        "batches": [HOSTS[:1], HOSTS[1:5], HOSTS[5:9], HOSTS[9:]],
        "may_fail": 2,
        "stays_out": [],
    }


def test_who_was_in_maintenance_stays_so() -> None:
    assert rolling.plan_traffic(part(HOSTS), True, fleet(balancer("api-3")))["rolling"]["stays_out"] == ["api-3"]


def test_a_host_left_out_counts_as_failed() -> None:
    left_out = part(HOSTS[:9], left_out={"api-10": "unreachable"})
    assert rolling.plan_traffic(left_out, True, fleet(max_failed=30))["rolling"]["may_fail"] == 2
    left_out = part(HOSTS[:2], left_out={"api-3": "unreachable"})
    assert rolling.plan_traffic(left_out, True, fleet(max_failed=34))["rolling"]["may_fail"] == 0


@pytest.mark.parametrize(
    ("hosts", "more", "balancers", "why"),
    [
        (HOSTS, {"schema": {"rollback": True}}, balancer(), "while the schema goes back"),
        (HOSTS[:1], {}, balancer(), "only api-1 to serve meanwhile"),
        (HOSTS[:2], {}, balancer("api-2"), "only api-1 to serve meanwhile"),
        (HOSTS, {}, balancer(enabled=True), "shown on haproxy already"),
        (HOSTS, {}, balancer(servers={}), "haproxy has no server api-1"),
        (HOSTS, {}, {"caddy": {"enabled": False}}, "caddy has no server api-1"),
        (HOSTS, {}, {}, "no balancer"),
    ],
)
def test_where_it_cannot_roll_the_page_is_shown_and_the_plan_says_why(
    hosts: list[str], more: dict[str, Any], balancers: dict[str, Any], why: str
) -> None:
    traffic = rolling.plan_traffic(part(hosts, **more), True, fleet(balancers))
    assert why in traffic["page_because"]
    assert "stop_traffic" not in traffic


def test_what_was_not_asked_for_or_needs_no_page_is_left_as_it_is() -> None:
    assert rolling.plan_traffic(part(HOSTS), False, fleet()) == {}
    assert rolling.plan_traffic({**part(HOSTS), "stop_traffic": False}, True, fleet()) == {}


def test_bad_policy_is_named() -> None:
    with pytest.raises(BadInput, match=r"rolling\.batch"):
        rolling.plan_traffic(part(HOSTS), True, fleet(batch=0))


def test_never_more_at_a_time_than_leave_enough_in_rotation() -> None:
    batches = rolling.plan_traffic(part(HOSTS[:6]), True, fleet(batch=5))["rolling"]["batches"]
    assert [len(batch) for batch in batches] == [1, 3, 2]
    batches = rolling.plan_traffic(part(HOSTS[:3]), True, fleet(batch=5))["rolling"]["batches"]
    assert [len(batch) for batch in batches] == [1, 1, 1]


def test_who_serves_nobody_goes_first() -> None:
    ready = {host: server("ready") for host in HOSTS}
    servers = {**ready, "api-3": server("drain"), "api-5": server("ready", "stopped")}
    order = rolling.plan_traffic(part(HOSTS[:6]), True, fleet(balancer(servers=servers)))["rolling"]
    assert rolling.sequence(order, []) == ["api-3", "api-5", "api-1", "api-2", "api-4", "api-6"]


def test_every_batch_is_told() -> None:
    order = rolling.plan_traffic(part(HOSTS[:4]), True, fleet(balancer("api-4")))["rolling"]
    assert rolling.traffic_lines(order) == [
        "rolling, without the page, in 3 batches, stopping at the first that fails; "
        "api-4 in maintenance before and after",
        "  batch 1: api-1, to show whether the release holds",
        "  batch 2: api-2, api-3",
        "  batch 3: api-4",
    ]


def test_the_place_of_a_batch_is_told_whoever_goes_first() -> None:
    hosts = rolling.sequence(ORDER, ["api-3"])
    assert rolling.place_of(["api-3"], hosts, ORDER) == {"hosts": ["api-3"], "number": 1, "of": 3}
    assert rolling.place_of(["api-2"], hosts, ORDER)["number"] == 2
    assert rolling.place_of(["api-4"], hosts, ORDER)["number"] == 3


def test_when_gone_on_with_who_was_left_drained_goes_first() -> None:
    assert rolling.sequence(ORDER, ["api-3"]) == ["api-3", "api-1", "api-2", "api-4"]


ORDER = {"batches": [["api-1"], ["api-2", "api-3"], ["api-4"]], "may_fail": 1, "stays_out": []}
IN_ORDER = ["api-1", "api-2", "api-3", "api-4"]


def test_it_goes_on_as_long_as_no_more_fail_than_may() -> None:
    rolling.stop_after_failures(ORDER, IN_ORDER, ["api-4"], {"api-3": "answers as old", "api-4": "no gate result"})


def test_it_stops_when_more_failed_and_says_who_was_not_touched() -> None:
    with pytest.raises(Held, match=r"2 of 3 hosts failed \(api-2, api-3\), 1 may; 1 hosts were not touched"):
        rolling.stop_after_failures(ORDER, IN_ORDER, ["api-4"], {"api-2": "x", "api-3": "y", "api-4": "z"})


def test_it_stops_when_the_first_fails_however_many_may() -> None:
    order = {**ORDER, "may_fail": 4}
    with pytest.raises(Held, match="3 hosts were not touched"):
        rolling.stop_after_failures(order, IN_ORDER, ["api-2", "api-3"], {"api-1": "x", "api-2": "y"})


def plan_service(
    reports: dict[str, Any], may_be_silent: int = 0, verdicts: dict[str, Any] | None = None
) -> dict[str, Any]:
    return planning.plan_service(
        "backend",
        {"stop_traffic": True, "uses_database": verdicts is not None},
        hosts=list(reports),
        reports=reports,
        marks=MARKS,
        wanted=None,
        verdicts=verdicts,
        may_be_silent=may_be_silent,
    )


BROKEN = {"live": RELEASES["new"], "candidates": [RELEASES["good"], RELEASES["old"]]}
ROLLED = {"live": RELEASES["good"], "candidates": [RELEASES["new"], RELEASES["old"]]}


def test_a_silent_host_is_left_out_where_that_may_be() -> None:
    reports = {"api-1": BROKEN, "api-2": {"msg": "no route to host"}}
    planned = plan_service(reports, may_be_silent=1)
    assert (planned["hosts"], planned["left_out"]) == (["api-1"], {"api-2": "no route to host"})
    with pytest.raises(Refused, match="api-2: no route to host"):
        plan_service(reports)


def test_why_a_host_is_silent_is_told_in_one_line() -> None:
    said = "Not reached over ssh: @@@@\n@  WARNING: IT HAS CHANGED!  @\n@@@@\nHost key verification failed.\n"
    assert planning.silent_hosts(["api-1"], {"api-1": {"msg": said}}) == {
        "api-1": "Not reached over ssh: ... Host key verification failed."
    }


def test_the_schema_does_not_go_back_while_a_host_out_of_reach_may_write() -> None:
    reports = {"api-1": BROKEN, "api-2": {"msg": "no route to host"}}
    verdicts = {"b" * 12: {"verdict": "destructive", "reasons": []}, "c" * 12: {"verdict": "equal", "reasons": []}}
    with pytest.raises(Refused, match="while api-2 is out of reach"):
        plan_service(reports, may_be_silent=1, verdicts=verdicts)


def test_no_host_at_all_that_answers_is_refused_whatever_may_be() -> None:
    with pytest.raises(Refused, match="2 of 2"):
        plan_service({"api-1": {}, "api-2": {}}, may_be_silent=2)


@pytest.mark.parametrize("reports", [[ROLLED, BROKEN], [BROKEN, ROLLED]])
def test_a_host_that_comes_back_late_goes_to_what_the_others_proved(reports: list[dict[str, Any]]) -> None:
    planned = plan_service(dict(zip(HOSTS, reports, strict=False)))
    assert planned["to"]["ref"] == "good"
