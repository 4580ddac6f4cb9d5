"""The plan of a component: what stops a wrong one, and which commit it names."""
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils import components, planning
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Refused

ROW = {"title": "API proxy", "service": "frontend", "paths": ["src/lib/api-proxy.ts"], "depends_on": {"backend": "up"}}


def release(letter: str, ref: str = "") -> dict[str, Any]:
    return {"release": letter * 12, "commit": letter * 40, **({"ref": ref} if ref else {})}


OLD, GOOD, BAD = release("a", "v1.0.0"), release("b", "v1.1.0"), release("c", "v1.2.0")
HYBRID = "d" * 40


def composed(target: dict[str, Any], commit: str | None = HYBRID) -> dict[str, Any]:
    return {"target": target["commit"], "commit": commit, "changed": ["x.ts"], "restored": [], "removed": ["y.ts"]}


def gate(passed: bool, said: str = "answered 404", status: str = "") -> dict[str, Any]:
    status = status or ("passed" if passed else "failed")
    return {"passed": passed, "passes": 5, "results": [{"name": "proxy", "status": status, "evidence": said}]}


BROKEN = {"component": gate(False), "depends_on": {"backend": gate(True)}}
REPORT = {"live": BAD, "candidates": [GOOD, OLD], "compositions": [composed(GOOD), composed(OLD)]}
MARKS = {"frontend": {letter * 40: {"mark": "good"} for letter in "ab"}}


def plan(
    reports: dict[str, Any] | None = None, found: Any = BROKEN, marks: Any = MARKS, wanted: Any = None, **more: Any
) -> dict[str, Any]:
    reports = reports or {"one": REPORT}
    return components.plan_component(
        "api-proxy", ROW, hosts=list(reports), reports=reports, marks=marks, wanted=wanted, found=found,
        **{"anyway": False, **more},
    )  # fmt: skip


def test_the_plan_names_the_hybrid_and_the_release_that_the_component_comes_from() -> None:
    part = plan()
    assert (part["action"], part["to"]) == ("rollback", {"release": "d" * 12, "commit": HYBRID})
    assert (part["hybrid"]["target"], part["hybrid"]["removed"]) == (GOOD, ["y.ts"])
    assert (part["build"], part["stop_traffic"]) == (["one"], False)
    shown = {"severity": "P1", "procedure": "component", "environment": "x", "reason": "r", "balancers": [],
             "approval": {"need": "none", "roles": []}}  # fmt: skip
    lines = "\n".join(planning.summary({**shown, "services": {"frontend": part}, "databases": []}))
    assert "a hybrid that never ran" in lines
    assert "api-proxy as in bbbbbbbbbbbb (v1.1.0) (1 changed, 1 removed), everything else, migrations too" in lines


def test_a_component_that_is_well_is_not_rolled_back_unless_told_so() -> None:
    well = {**BROKEN, "component": gate(True, "answered 200")}
    with pytest.raises(Refused, match=r"is not broken, 5 times in a row: proxy: answered 200"):
        plan(found=well)
    assert plan(found=well, anyway=True)["action"] == "rollback"


@pytest.mark.parametrize("look", [{}, {"msg": "secret_files: no such file"}, gate(False, status="unknown")])
def test_what_could_not_be_looked_at_is_not_taken_for_broken(look: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="could not be checked"):
        plan(found={**BROKEN, "component": look})


@pytest.mark.parametrize("backend", [gate(False, "answered 503"), {}])
def test_what_it_depends_on_being_down_is_said_and_stops_it_whatever_is_told(backend: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="backend is what is down") as refused:
        plan(found={**BROKEN, "depends_on": {"backend": backend}}, anyway=True)
    assert refused.value.advice.endswith("rollback run backend")


def test_a_live_release_that_is_good_stays_and_needs_no_look() -> None:
    marks = {"frontend": {**MARKS["frontend"], "c" * 40: {"mark": "good"}}}
    assert plan(marks=marks, found={})["action"] == "none"
    with pytest.raises(Refused, match="backend is what is down"):
        plan(marks=marks, found={**BROKEN, "depends_on": {"backend": gate(False, "answered 503")}})


def test_a_component_that_the_last_deploy_left_alone_is_not_what_broke() -> None:
    report = {**REPORT, "compositions": [composed(GOOD, None), composed(OLD)]}
    with pytest.raises(Refused, match=r"the last deploy did not touch it") as refused:
        plan({"one": report})
    assert "from aaaaaaaaaaaa (v1.0.0), which had others" in refused.value.advice
    assert plan({"one": report}, wanted="v1.0.0")["hybrid"]["target"] == OLD


def test_nothing_to_change_anywhere_is_said() -> None:
    report = {**REPORT, "compositions": [composed(GOOD, None), composed(OLD, None)]}
    with pytest.raises(Refused, match="no release that was live had it otherwise"):
        plan({"one": report})


def test_a_release_marked_bad_is_no_source() -> None:
    marks = {"frontend": {"a" * 40: {"mark": "good"}, "b" * 40: {"mark": "bad"}}}
    assert plan(marks=marks)["hybrid"]["target"] == OLD


def test_hosts_that_differ_stop_it() -> None:
    with pytest.raises(Refused, match="2 releases are live"):
        plan({"one": REPORT, "two": {**REPORT, "live": GOOD, "candidates": [BAD, OLD]}}, marks={})
    other = {**REPORT, "compositions": [composed(GOOD, "e" * 40)]}
    with pytest.raises(Refused, match="different commits"):
        plan({"one": REPORT, "two": other})
    with pytest.raises(Refused, match="the repository on two does not hold"):
        plan({"one": REPORT, "two": {**REPORT, "compositions": []}})


def test_an_unknown_component_is_named_with_those_there_are() -> None:
    with pytest.raises(BadInput, match="component: 'nope' is not one of api-proxy"):
        components.find("nope", {"api-proxy": ROW})


def test_a_commit_that_is_named_need_not_have_been_live() -> None:
    named = {"one": {**REPORT, "named": {"commit": HYBRID}}}
    part = components.plan_named("frontend", ["one"], named)
    assert (part["action"], part["to"]["commit"], part["build"]) == ("rollback", HYBRID, ["one"])
    live = {"one": {**REPORT, "named": {"commit": BAD["commit"]}}}
    assert components.plan_named("frontend", ["one"], live)["action"] == "none"
    with pytest.raises(BadInput, match=r"to: name the commit.*one: ref: 'x' cannot be found"):
        components.plan_named("frontend", ["one"], {"one": {**REPORT, "named": {"msg": "ref: 'x' cannot be found"}}})
