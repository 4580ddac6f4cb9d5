from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils import planning, session_planning
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Refused

BACKEND = {"stop_traffic": True, "uses_database": True}


def release(letter: str, ref: str = "") -> dict[str, Any]:
    return {"release": letter * 12, "commit": letter * 40, **({"ref": ref} if ref else {})}


OLD, GOOD, BAD = release("a", "v1.0.0"), release("b", "v1.1.0"), release("c", "v1.2.0")
REPORT = {"live": BAD, "candidates": [GOOD, OLD]}
EQUAL = {letter * 12: {"verdict": "equal", "reasons": ["same migrations"]} for letter in "abc"}


def marks(**known: str) -> dict[str, Any]:
    return {"backend": {letter * 40: {"mark": mark} for letter, mark in known.items()}}


RENAMED = {
    "b" * 12: {"verdict": "destructive", "reasons": ["column name was renamed"]},
    "c" * 12: {"verdict": "equal", "reasons": []},
}


def plan(
    reports: dict[str, Any],
    known: dict[str, Any],
    wanted: str | None = None,
    verdicts: Any = EQUAL,
    schema_too: bool = False,
) -> Any:
    return planning.plan_service(
        "backend", BACKEND, hosts=list(reports), reports=reports, marks=known, wanted=wanted, verdicts=verdicts,
        schema_too=schema_too,
    )  # fmt: skip


def test_the_newest_release_that_was_live_and_good_is_chosen() -> None:
    part = plan({"api-1": REPORT, "api-2": REPORT}, marks(a="good", b="good"))
    assert (part["action"], part["to"]["ref"], part["stop_traffic"]) == ("rollback", "v1.1.0", True)


def test_a_release_marked_bad_is_passed_over() -> None:
    assert plan({"api-1": REPORT}, marks(b="bad"))["to"] == OLD


def test_a_good_one_is_preferred_to_a_newer_one_that_nobody_vouched_for() -> None:
    assert plan({"api-1": REPORT}, marks(a="good"))["to"] == OLD


def test_a_live_release_that_is_good_stays_so_that_a_second_run_changes_nothing() -> None:
    part = plan({"api-1": {"live": GOOD, "candidates": [BAD, OLD]}}, marks(a="good", b="good", c="bad"))
    assert (part["action"], part["to"]) == ("none", GOOD)


def test_hosts_that_differ_are_brought_to_one_release() -> None:
    reports = {"api-1": REPORT, "api-2": {"live": GOOD, "candidates": [BAD, GOOD, OLD]}}
    part = plan(reports, marks(a="good", b="good"))
    assert (part["action"], part["to"]["ref"]) == ("rollback", "v1.1.0")


def test_only_what_every_host_can_go_back_to_is_a_candidate() -> None:
    reports = {"api-1": REPORT, "api-2": {"live": BAD, "candidates": [OLD]}}
    assert plan(reports, marks(b="good"))["to"] == OLD


@pytest.mark.parametrize("wanted", ["v1.0.0", "a" * 12, "a" * 40])
def test_the_operator_can_name_a_release(wanted: str) -> None:
    assert plan({"api-1": REPORT}, marks(b="good"), wanted)["to"] == OLD


def test_a_release_nobody_has_is_one_clear_line_with_those_there_are() -> None:
    with pytest.raises(BadInput, match=r"to: backend has no release 'v9'.*v1\.1\.0.*v1\.0\.0"):
        plan({"api-1": REPORT}, {}, "v9")


def test_nothing_to_go_back_to_is_a_failure() -> None:
    with pytest.raises(Refused, match="no release to go back to"):
        plan({"api-1": {"live": BAD, "candidates": [GOOD]}}, marks(b="bad"))


def test_no_host_is_a_failure() -> None:
    with pytest.raises(Refused, match="no host in the inventory"):
        plan({}, {})


def test_a_host_that_could_not_be_read_is_named() -> None:
    with pytest.raises(Refused, match=r"1 of 2 hosts \(api-2: no route to host\)"):
        plan({"api-1": REPORT, "api-2": {"msg": "no route to host"}}, {})


@pytest.mark.parametrize("verdict", ["behind", "unknown"])
def test_nothing_goes_back_when_the_schema_forbids_it(verdict: str) -> None:
    verdicts = {"b" * 12: {"verdict": verdict, "reasons": ["column name was dropped"]}}
    with pytest.raises(Refused, match=f"{verdict}.*column name was dropped"):
        plan({"api-1": REPORT}, marks(b="good"), verdicts=verdicts)


@pytest.mark.parametrize("verdicts", [None, {}])
def test_an_unknown_schema_is_not_taken_for_a_good_one(verdicts: Any) -> None:
    with pytest.raises(Refused, match="database"):
        plan({"api-1": REPORT}, marks(b="good"), verdicts=verdicts)


def test_an_additive_schema_goes_back_by_code_alone_and_says_why() -> None:
    verdicts = {"b" * 12: {"verdict": "additive", "reasons": ["table Campaign was added"]}}
    part = plan({"api-1": REPORT}, marks(b="good"), verdicts=verdicts)
    assert part["schema"] == {"verdict": "additive", "reasons": ["table Campaign was added"], "rollback": False}


def test_a_destructive_schema_goes_back_with_the_code() -> None:
    part = plan({"api-1": REPORT}, marks(b="good"), verdicts=RENAMED)
    assert part["schema"]["rollback"] and part["schema"]["from"] == BAD["release"]
    assert planning.databases_for(full_plan(backend=part), ["db-1", "db-2"]) == ["db-1"]


def test_the_release_that_has_the_databases_migrations_tells_how_they_go_back_whichever_is_live() -> None:
    reports = {"api-1": {"live": GOOD, "candidates": [BAD, OLD]}, "api-2": REPORT}
    assert plan(reports, marks(b="good"), "v1.1.0", RENAMED)["schema"]["from"] == BAD["release"]
    unknown = {"b" * 12: RENAMED["b" * 12]}
    with pytest.raises(Refused, match="no release at hand has exactly its migrations"):
        plan(reports, marks(b="good"), "v1.1.0", unknown)


ADDED = {
    "b" * 12: {"verdict": "additive", "reasons": ["table Campaign was added"]},
    "c" * 12: {"verdict": "equal", "reasons": []},
}


def test_a_schema_rollback_takes_the_code_along_that_needs_it() -> None:
    part = plan({"api-1": REPORT}, marks(b="good"), verdicts=ADDED, schema_too=True)
    assert (part["action"], part["to"]["ref"], part["stop_traffic"]) == ("rollback", "v1.1.0", True)
    assert part["schema"]["rollback"] and part["schema"]["from"] == BAD["release"]


def test_a_schema_rollback_leaves_good_code_where_it_is_and_verifies_it() -> None:
    live = {"api-1": {"live": GOOD, "candidates": [BAD, OLD]}}
    part = plan(live, marks(b="good", c="bad"), verdicts=ADDED, schema_too=True)
    assert (part["action"], part["from"], part["to"]) == ("rollback", [GOOD], GOOD)
    assert part["schema"]["rollback"] and part["schema"]["from"] == BAD["release"]
    words = {"severity": "P1", "procedure": "database", "environment": "x", "reason": "y",
             "approval": {"need": "preferred", "roles": ["team_lead"]}}  # fmt: skip
    lines = planning.summary({**full_plan(backend=part), **words})
    assert any("stays on api-1, its database goes back" in line for line in lines)


def test_a_schema_rollback_changes_nothing_where_the_schema_is_equal() -> None:
    live = {"api-1": {"live": GOOD, "candidates": [BAD, OLD]}}
    assert plan(live, marks(b="good"), schema_too=True)["action"] == "none"


def full_plan(**parts: Any) -> dict[str, Any]:
    return {"services": parts, "balancers": ["lb"], "databases": []}


PLANNED = full_plan(backend={"action": "rollback", "hosts": ["api-1", "api-2"], "to": GOOD, "stop_traffic": True})


def test_success_needs_the_planned_release_proved_on_every_planned_host() -> None:
    proved = {"passed": True, "release": GOOD["release"]}
    assert planning.verify_reports(PLANNED, {"api-1": proved, "api-2": proved}) == []
    assert planning.verify_reports(PLANNED, {"api-1": proved}) == ["api-2: no gate result"]
    wrong = {"passed": True, "release": BAD["release"]}
    assert "answers as cccccccccccc" in planning.verify_reports(PLANNED, {"api-1": proved, "api-2": wrong})[0]
    failed = {"passed": False, "msg": "health answered 500"}
    assert planning.verify_reports(PLANNED, {"api-1": failed, "api-2": proved}) == ["api-1: health answered 500"]


def test_a_plan_names_what_it_takes_out_of_production_and_whose_it_is() -> None:
    left = [{"commit": f"{number}" * 40, "author": "Ann", "subject": f"change \x1b[2J{number}"} for number in range(7)]
    part = plan({"api-1": {"live": BAD, "candidates": [{**GOOD, "leaves": left}, OLD]}}, {})
    words = {"severity": "P0", "procedure": "backend", "environment": "test", "reason": "down"}
    approval = {"approval": {"need": "none", "roles": []}}
    lines = planning.summary({**full_plan(backend=part), **words, **approval})
    without = [line for line in lines if line.startswith("  without")]
    assert without == [f"  without {str(number) * 7} change [2J{number} (Ann)" for number in range(5)]
    assert "  and 2 more" in lines


def test_a_deployment_leaves_behind_what_was_deployed_after_it() -> None:
    deployments = [
        {"id": letter, "commit": letter * 40, "author": "Ann", "message": f"{letter}\n\nlong", "created": letter,
         "can_rollback": True}
        for letter in "cba"
    ]  # fmt: skip
    report = {"live": deployments[0], "candidates": deployments[1:]}
    part = plan({"api-1": report}, {}, wanted="a" * 40)
    assert [one["subject"] for one in part["leaves"]] == ["c", "b"]
    assert planning.left_to_do(full_plan(frontend=part)) == [
        "once the fix is ready, let automatic deploys go on: rollback unfreeze"
    ]


def test_a_plan_that_stops_traffic_needs_a_balancer() -> None:
    with pytest.raises(Refused, match="balancer"):
        planning.balancers_for(PLANNED, {})
    with pytest.raises(Refused, match="lb could not be read"):
        planning.balancers_for(PLANNED, {"lb": {"msg": "no such socket"}})
    assert planning.balancers_for(PLANNED, {"lb": {"enabled": False}}) == ["lb"]
    assert planning.balancers_for(full_plan(frontend={"stop_traffic": False}), {}) == []


def test_a_release_without_a_build_somewhere_is_built_there_first() -> None:
    unbuilt = {"live": BAD, "candidates": [{**GOOD, "built": False}, OLD]}
    built = {"live": BAD, "candidates": [{**GOOD, "built": True}, OLD]}
    part = plan({"api-1": built, "api-2": unbuilt}, marks(b="good"))
    assert part["build"] == ["api-2"]
    assert "build" not in plan({"api-1": built}, marks(b="good"))


def test_equal_states_give_equal_hashes() -> None:
    one = plan({"api-1": REPORT}, marks(b="good"))
    assert planning.plan_hash(one) == planning.plan_hash(plan({"api-1": REPORT}, marks(b="good")))
    assert planning.plan_hash(one) != planning.plan_hash(plan({"api-1": REPORT}, marks(a="good")))


SCOPE = {"pattern": "sess:*", "user": "", "created_before": "", "unknown": "keep", "flush_other_keys": ""}
SIGNED = [{"sessions": "bearer tokens", "secret": "JWT_SECRET", "rotation": ["Put a new one", "Restart"]}]
COUNTED = {
    "changed": True,
    "sessions": {"count": 3, "kinds": {"sess:": 3}},
    "unknown": {"count": 1, "kinds": {"sess:": 1}},
    "others": {"before": {"count": 2, "kinds": {"bull:": 2}}},
}


def clearing(scope: dict[str, Any] = SCOPE, report: Any = COUNTED) -> dict[str, Any]:
    part = session_planning.part(scope, {"redis": report}, SIGNED)
    return {"severity": "P1", "procedure": "sessions", "environment": "x", "reason": "y", "services": {},
            "approval": {"need": "preferred", "roles": ["team_lead"]},
            "balancers": [], "databases": [], **part}  # fmt: skip


def test_a_plan_that_ends_sessions_says_which_and_what_it_does_not_end() -> None:
    plan = clearing({**SCOPE, "user": "dana@example.com", "flush_other_keys": ""})
    lines = planning.summary(plan)
    assert "sessions: those sess:* of dana@example.com are ended on redis" in lines
    assert any(line.startswith("not ended: bearer tokens") and "JWT_SECRET" in line for line in lines)
    assert session_planning.left_to_do(plan) == [
        "[ ] JWT_SECRET (bearer tokens): Put a new one", "[ ] JWT_SECRET (bearer tokens): Restart",
    ]  # fmt: skip
    assert planning.planned_hosts(plan) == [{"name": "redis", "groups": ["planned_sessions"]}]


def test_a_plan_names_the_number_of_other_keys_that_a_flush_kills() -> None:
    lines = planning.summary(clearing({**SCOPE, "flush_other_keys": "26"}))
    assert "FLUSHDB empties redis: 26 keys that are no sessions die too" in lines


def test_how_many_sessions_there_are_at_the_moment_is_no_part_of_the_plan() -> None:
    more = {**COUNTED, "sessions": {"count": 9, "kinds": {"sess:": 9}}}
    assert planning.plan_hash(clearing()) == planning.plan_hash(clearing(report=more))
    assert session_planning.counted({"redis": more}) == [
        "now on redis: 9 (sess: 9) sessions in scope, 1 that do not tell, 2 (bull: 2) other keys"
    ]


def test_without_a_session_in_scope_nothing_changes() -> None:
    plan = clearing(report={**COUNTED, "changed": False})
    assert not planning.changes_something(plan)
    assert planning.summary(plan)[-1] == "nothing to change"


def test_success_needs_the_proof_that_the_sessions_are_gone() -> None:
    assert planning.verify_reports(clearing(), {"redis": {"passed": True}}) == []
    assert planning.verify_reports(clearing(), {"redis": {}}) != []


def test_a_store_that_cannot_be_read_is_a_refusal() -> None:
    with pytest.raises(Refused, match=r"redis could not be read \(no answer"):
        session_planning.part(SCOPE, {"redis": {"msg": "no answer"}}, SIGNED)


def test_an_environment_without_a_store_of_sessions_is_a_refusal() -> None:
    with pytest.raises(Refused, match="sessions: its group has no host"):
        session_planning.part(SCOPE, {}, SIGNED)


def test_a_host_that_lacks_a_secret_of_the_checklist_is_told_before_users_meet_the_page() -> None:
    lacking = {**REPORT, "host": {"unreadable": ["secret_files.password: /etc/password cannot be read"]}}
    part = plan({"api-1": REPORT, "api-2": lacking}, {})
    with pytest.raises(Refused, match=r"backend: api-2 could not prove its release: secret_files.password: /etc/passw"):
        planning.refuse_blind_hosts({"services": {"backend": part}}, {"api-1": REPORT, "api-2": lacking})
    part["action"] = "none"
    planning.refuse_blind_hosts({"services": {"backend": part}}, {"api-1": REPORT, "api-2": lacking})
