"""The actions on the control host's record: what they refuse, write and find out."""
from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.action import (
    rollback_freeze,
    rollback_mark,
    rollback_plan,
    rollback_record,
    rollback_run,
    rollback_watch,
)
from ansible_collections.marketsage.rollback.plugins.module_utils import audit, freeze
from ansible_collections.marketsage.rollback.plugins.module_utils import control as control_module
from ansible_collections.marketsage.rollback.plugins.module_utils.approval import Rules
from ansible_collections.marketsage.rollback.plugins.module_utils.control import Control
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Refused, Unknown
from ansible_collections.marketsage.rollback.plugins.module_utils.run import Run

GOOD, BAD = ({"release": letter * 12, "commit": letter * 40} for letter in "ab")
READ = {"live": BAD, "candidates": [{**GOOD, "built": True}]}
HOSTS = {"backend": ["api-1"], "database": [], "balancer": ["lb"]}
POLICY = {
    "severities": {
        "P0": {"rollback": "at_once", "traffic": "page", "approval": "none", "action": "now"},
        "P1": {"rollback": "evaluate", "traffic": "rolling", "approval": "none", "action": "evaluate"},
        "P2": {"rollback": "ask", "traffic": "rolling", "approval": "required", "action": "ask"},
    },
    "approval": {"roles": ["team_lead"], "valid_for": 3600},
    "rolling": {"first": 1, "batch": 5, "keep_serving": 50, "max_failed": 20, "drain_timeout": 30},
}
CLOSING = {"undone": [], "notes": [], "freeze_for": 0, "given_up": False}
EQUAL = {letter * 12: {"verdict": "equal", "reasons": []} for letter in "ab"}


@pytest.fixture
def control(tmp_path: Path) -> Control:
    return Control(str(tmp_path / "control"))


def resolved(control: Control, **words: Any) -> dict[str, Any]:
    return rollback_plan.resolve(control, request(**words))


def request(**words: Any) -> dict[str, Any]:
    said: dict[str, Any] = {
        "environment": "test", "procedure": "backend", "services": ["backend"], "severity": "P0",
        "reason": "it is down", "to": None, "back": None, "anyway": False, "run_id": None,
        "instead_of": None, "abort": None, "undo": None,
        "policy": POLICY, "catalogue": {"backend": {"stop_traffic": True, "uses_database": True}}, "hosts": HOSTS,
        "balancers": {"lb": {"enabled": False}}, "reports": {"api-1": READ}, "schema_verdicts": EQUAL,
        "session_scope": None, "session_stores": {}, "signed_sessions": [],
        "archives": [], "archive_of": None, "schema_too": False, "recovery": None, "accept_loss": "",
        "without": [], "takes_backup": False, "point_in_time": "", "component": None, "named": False,
        "rolling": False, "servers": {},
    }  # fmt: skip
    return {**said, **words}


def opened(control: Control, plan: dict[str, Any], run_id: str | None = None, **words: Any) -> dict[str, Any]:
    people = {"lea": {"role": "team_lead"}}
    given = {"takeover": None, "approval": None, "rules": Rules(["team_lead"], 3600, people, None, None), **words}
    return rollback_run.open_run(control, rollback_run.Request(plan, run_id, **given), False)


def closed(control: Control, run: dict[str, Any], **words: Any) -> dict[str, Any]:
    plan = control.plan(run["id"]) or {}
    release = plan["services"]["backend"]["to"]["release"]
    arguments = {"reports": {"api-1": {"passed": True, "release": release}}, **CLOSING, **words}
    closing = Run(run["id"], run["fence"], control.directory)
    outcome: dict[str, Any] = rollback_run.close_run(control, closing, arguments)["outcome"]
    return outcome


@pytest.fixture
def driver_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "process_start", lambda pid: None)


SESSION = {"url": "<ap>/login", "json": {}, "cookie": "sid", "url_file": "/etc/redis_url"}


@pytest.mark.parametrize(
    ("lines", "secrets", "said"),
    [
        ([{"name": "up", "reqests": []}], {}, "unknown: rollback_checklists.backend.reqests"),
        ([{"name": "up"}], {}, "'up' must have exactly one of requests, sql"),
        ([{"name": "up", "requests": [{"url": "<api>/<id>"}]}], {}, "'up' uses <id>, which is none of secret_files"),
        ([{"name": "up", "requests": [{"url": "<ap>/up"}]}], {}, "<ap>/up is asked, but addresses.ap.url does not say"),
        ([{"name": "up", "requests": [{"url": "<app>/"}]}], {}, "<app>/ is asked, but addresses.app.url does not say"),
        ([{"name": "up", "requests": [{"url": "<edge>/"}]}], {}, "<edge>/ is asked, but addresses.edge.url does not"),
        ([{"name": "in", "session": SESSION}], {}, "<ap>/login is asked, but addresses.ap.url does not say"),
        ([], {"password": "/nowhere"}, "secret_files.password: /nowhere cannot be read"),
    ],
)
def test_what_no_gate_can_ask_is_bad_input_before_the_lock_is_taken(lines: Any, secrets: Any, said: str) -> None:
    outside = {"api": {"url": "https://api.example.com"}, "app": {"url": ""}, "edge": {"url": "https://example.com"}}
    asked = {"addresses": outside, "gate_addresses": {"backend": {"api": {"url": "http://127.0.0.1:3000"}}}}
    with pytest.raises(BadInput, match=said):
        rollback_run.refuse_what_no_gate_can_ask({"checklists": {"backend": lines}, **asked, "secret_files": secrets})


def test_what_requires_an_approval_is_proposed_and_not_begun(control: Control) -> None:
    plan = resolved(control, severity="P2")
    with pytest.raises(Refused, match=r"P2 needs that of team_lead \(lea\)") as refused:
        opened(control, plan)
    (proposal,) = Path(control.path("proposals")).iterdir()
    assert json.loads(proposal.read_text()) == plan
    assert proposal.name[:12] in refused.value.advice
    assert control.holder() is None


def test_what_is_only_proposed_begins_nothing_and_is_news_once(control: Control) -> None:
    plan = resolved(control)
    first, again = (opened(control, plan, proposes=True) for _time in range(2))
    assert (first["status"], first["changed"], first["run"]) == ("proposed", True, None)
    assert (again["status"], again["changed"]) == ("proposed", False)
    assert (control.holder(), control.runs(), freeze.active(control.freeze_file)) == (None, [], [])
    assert [one["plan"] for one in rollback_record.proposed(control)] == [plan]
    assert opened(control, plan)["status"] == "new"


def test_a_run_is_gone_on_with_by_the_request_that_began_it_and_by_no_other(control: Control) -> None:
    run = opened(control, resolved(control, to="a" * 12))["run"]["id"]
    assert rollback_plan.run_to_go_on_with(control, request(to="a" * 12)) == run
    for other in ({}, {"to": "b" * 12}, {"to": "a" * 12, "reason": "something else"}):
        assert rollback_plan.run_to_go_on_with(control, request(**other)) is None


def test_deploys_are_frozen_while_a_run_is_open_and_for_a_while_after_it(control: Control) -> None:
    run = opened(control, resolved(control))["run"]
    assert [entry["until"] for entry in freeze.active(control.freeze_file)] == [None]
    with pytest.raises(Refused, match="has an open run"):
        rollback_freeze.lifted(control, False)
    closed(control, run, freeze_for=600)
    with pytest.raises(Refused, match=f"after {run['id']}"):
        rollback_freeze.asked(control)
    rollback_freeze.lifted(control, False)
    assert rollback_freeze.asked(control) == {"changed": False, "run": None}


def test_what_holds_deploys_back_longest_is_said_first(control: Control) -> None:
    Path(control.directory).mkdir()
    for name, seconds in (("short", 60), ("open run", None), ("long", 3600), ("another run", None)):
        freeze.put(control.freeze_file, name, by="lea", reason=name, seconds=seconds)
    reasons = [entry["reason"] for entry in freeze.active(control.freeze_file)]
    assert ({*reasons[:2]}, reasons[2:]) == ({"open run", "another run"}, ["long", "short"])
    freeze.lift(control.freeze_file, ["open run", "another run"])
    with pytest.raises(Refused, match=r"deploys are frozen by lea .*: long"):
        rollback_freeze.asked(control)


def test_after_a_backup_deploys_go_on_at_once(control: Control) -> None:
    run = opened(control, {**resolved(control), "takes_backup": True})["run"]
    with pytest.raises(Refused):
        rollback_freeze.asked(control)
    closed(control, run, freeze_for=600)
    assert rollback_freeze.asked(control) == {"changed": False, "run": None}


def test_a_freeze_that_has_expired_holds_nothing_back(control: Control) -> None:
    os.makedirs(control.directory)
    freeze.put(control.freeze_file, "ann", by="ann", reason="looking at it", seconds=-1)
    assert rollback_freeze.asked(control)["changed"] is False


@pytest.mark.parametrize(
    ("words", "said"), [({"seconds": 0}, "seconds"), ({"seconds": 90000}, "more than"), ({"reason": ""}, "reason")]
)
def test_a_freeze_without_reason_or_sensible_end_is_bad_input(
    control: Control, words: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        rollback_freeze.frozen(control, {"reason": "looking at it", "seconds": 60, "longest": 86400, **words}, False)


def test_an_abort_goes_back_to_where_the_run_started_and_marks_nothing(control: Control, driver_gone: None) -> None:
    first = opened(control, resolved(control))["run"]
    half = {**READ, "live": GOOD, "candidates": [{**BAD, "built": True}]}
    plan = resolved(control, abort=first["id"], severity="", reason="", reports={"api-1": half})
    part = plan["services"]["backend"]
    assert (part["to"], plan["instead_of"], plan["approval"]["need"]) == (BAD, first["id"], "none")
    second = opened(control, plan)["run"]
    assert (control.outcome(first["id"]) or {})["state"] == "superseded"
    outcome = closed(control, second)
    assert (outcome["state"], outcome["exit_code"]) == ("aborted", 21)
    assert rollback_run.status(control)["marks"] == {}
    # Deploys were held back for as long as the first run was open, which it is no more.
    assert freeze.active(control.freeze_file) == []


def test_an_abort_before_anything_was_switched_still_ends_the_run(control: Control, driver_gone: None) -> None:
    first = opened(control, resolved(control))["run"]
    plan = resolved(control, abort=first["id"], severity="", reason="")
    assert (plan["services"]["backend"]["action"], plan["services"]["backend"]["to"]) == ("rollback", BAD)


def test_an_undo_goes_forward_again_and_marks_nothing_bad(control: Control) -> None:
    first = opened(control, resolved(control))["run"]
    closed(control, first)
    now = {**READ, "live": GOOD, "candidates": [{**BAD, "built": True}]}
    behind = {BAD["release"]: {"verdict": "behind", "reasons": ["the target needs it"]}}
    plan = resolved(control, undo=first["id"], reports={"api-1": now}, hosts={**HOSTS, "database": ["db"]},
                    schema_verdicts=behind)  # fmt: skip
    assert (plan["services"]["backend"]["to"], plan["databases"]) == (BAD, ["db"])
    assert plan["services"]["backend"]["schema"]["forward"] == first["id"]
    closed(control, opened(control, plan)["run"])
    marks = rollback_run.status(control)["marks"]["backend"]
    assert {commit: one["mark"] for commit, one in marks.items()} == {GOOD["commit"]: "good", BAD["commit"]: "good"}


@pytest.mark.parametrize(("how", "said"), [("abort", "has ended"), ("undo", "still open")])
def test_only_what_is_open_is_aborted_and_only_what_is_done_is_undone(control: Control, how: str, said: str) -> None:
    run = opened(control, resolved(control))["run"]
    if how == "abort":
        closed(control, run)
    with pytest.raises(Refused, match=said):
        resolved(control, **{how: run["id"]})


def test_back_counts_releases_that_are_not_bad_and_never_goes_back_twice(control: Control) -> None:
    older = {"release": "c" * 12, "commit": "c" * 40, "built": True}
    read = {"live": BAD, "candidates": [{**GOOD, "built": True}, older]}
    verdicts = {**EQUAL, "c" * 12: EQUAL["a" * 12]}
    plan = resolved(control, back=2, reports={"api-1": read}, schema_verdicts=verdicts)
    assert plan["services"]["backend"]["to"]["release"] == "c" * 12
    with pytest.raises(Refused, match="back: backend has 2 releases"):
        resolved(control, back=3, reports={"api-1": read}, schema_verdicts=verdicts)
    closed(control, opened(control, plan)["run"])
    again = {"live": older, "candidates": [{**GOOD, "built": True}]}
    plan = resolved(control, back=1, reports={"api-1": again}, schema_verdicts=verdicts)
    assert plan["services"]["backend"]["action"] == "none"


def test_side_duties_that_could_not_be_done_end_a_run_with_10(control: Control) -> None:
    run = opened(control, resolved(control))["run"]
    outcome = closed(control, run, undone=["switch automatic deploys off"])
    assert (outcome["state"], outcome["exit_code"]) == ("done", 10)


def test_what_operators_call_a_release_is_one_release_or_refused() -> None:
    known = {"backend": [{**GOOD, "ref": "v1"}], "frontend": [{**BAD, "ref": "v1", "release": "b" * 12}]}
    assert rollback_mark.named(known, GOOD["release"]) == ("backend", GOOD["commit"])
    with pytest.raises(BadInput, match="releases of backend, frontend; name a service"):
        rollback_mark.named(known, "v1")
    with pytest.raises(BadInput, match="live on no host"):
        rollback_mark.named(known, "v9")


def record_of_a_finished_run(control: Control) -> Path:
    run = opened(control, resolved(control))["run"]
    directory = Path(control.path("runs", run["id"]))
    collected = directory / "journals"
    collected.mkdir()
    with Run(run["id"], run["fence"], str(collected.parent / "host")).change("step", {}):
        pass
    (collected.parent / "host" / "journal" / f"{run['id']}.jsonl").rename(collected / "api-1.jsonl")
    closed(control, run)
    return directory


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


TAMPERING: list[tuple[str, Callable[[Path], Any], str]] = [
    ("plan", lambda run: edit(run / "plan.json", "it is down", "it was fun"), "plan.json is not the plan"),
    ("outcome", lambda run: edit(run / "outcome.json", '"done"', '"held"'), "outcome.json is not what"),
    ("no outcome", lambda run: (run / "outcome.json").unlink(), "outcome.json is missing"),
    ("host's journal", lambda run: edit(run / "journals/api-1.jsonl", '"step":"step"', '"step":"stop"'), "was altered"),
    ("host's journal gone", lambda run: (run / "journals/api-1.jsonl").unlink(), "api-1: the journal is not the one"),
    ("approval", lambda run: (run / "approval.json").write_text('{"plan":"x","approver":"y"}'), "for another plan"),
    (
        "journal cut short",
        lambda run: [
            (run / "journals/api-1.jsonl").write_text(
                (run / "journals/api-1.jsonl").read_text().splitlines(keepends=True)[0]
            )
        ],
        "api-1: the journal is not the one",
    ),
    (
        "control's journal",
        lambda run: edit(run.parents[1] / "journal" / f"{run.name}.jsonl", "it is down", "it was fun"),
        "was altered",
    ),
]


@pytest.mark.parametrize(("tamper", "said"), [row[1:] for row in TAMPERING], ids=[row[0] for row in TAMPERING])
def test_the_audit_finds_what_was_altered(control: Control, tamper: Callable[[Path], Any], said: str) -> None:
    run = record_of_a_finished_run(control)
    assert [one["problems"] for one in rollback_record.audited(control)["runs"]] == [[]]
    tamper(run)
    (found,) = audit.verify(control)
    assert said in "; ".join(found["problems"])
    with pytest.raises(Unknown, match="Who changed the record"):
        rollback_record.audited(control)


def watching(control: Control, run: str, **words: Any) -> dict[str, Any]:
    settings = {"window": 60, "times": 1.5, "measures": []}
    return rollback_watch.begin(control, run, {"seconds": 600, "settings": settings, "reports": {}, **words}, "")


def test_a_watch_begins_when_its_run_has_ended(control: Control) -> None:
    run = opened(control, resolved(control))["run"]
    with pytest.raises(Refused, match="is still open"):
        watching(control, run["id"])
    closed(control, run)
    watch = watching(control, run["id"])["watch"]
    assert (watch["run"], watch["baseline"], watch["ends"] - watch["started"]) == (run["id"], None, 600)
    with pytest.raises(BadInput, match="there is no run"):
        watching(control, "20260101T000000Z-backend-0000")
    for seconds, said in ((0, "not a whole number from 1 up"), (86401, "longer than a day")):
        with pytest.raises(BadInput, match=said):
            watching(control, run["id"], seconds=seconds)


def test_a_verdict_is_kept_with_its_run_and_fails_unless_it_is_better(control: Control) -> None:
    run = opened(control, resolved(control))["run"]
    closed(control, run)
    watch = watching(control, run["id"])["watch"]
    passed = {"name": "API", "status": "passed", "required": True, "evidence": "200"}
    for status, code in (("unknown", 30), ("failed", 5)):
        found = {"health": [{**passed, "status": status}], "users": []}
        with pytest.raises(rollback_watch.Judged) as judged:
            rollback_watch.judge(control, watch, found, "", check_mode=False)
        result = judged.value.result()
        assert (result["exit_code"], result["criteria"][0]["answer"]) == (code, "no" if code == 5 else "unknown")
        kept = json.loads(Path(control.path("runs", run["id"], "watch.json")).read_text())
        assert (kept["verdict"], kept["health"]) == (result["verdict"], found["health"])
    assert "nobody was told" in str(judged.value)


def test_what_a_watch_would_say_is_neither_kept_nor_told_in_check_mode(control: Control) -> None:
    run = opened(control, resolved(control))["run"]
    closed(control, run)
    watch = watching(control, run["id"])["watch"]
    with pytest.raises(rollback_watch.Judged):
        rollback_watch.judge(control, watch, {"health": [], "users": []}, "", check_mode=True)
    assert not Path(control.path("runs", run["id"], "watch.json")).exists()


SERVERS = {host: {"admin": "ready", "operational": "running"} for host in ("api-1", "api-2")}
FLEET = {
    "severity": "P1", "rolling": True, "hosts": {**HOSTS, "backend": ["api-1", "api-2"]},
    "reports": {"api-1": READ, "api-2": READ}, "balancers": {"lb": {"enabled": False, "servers": SERVERS}},
}  # fmt: skip


def test_without_the_page_hosts_are_named_in_their_order_and_when_gone_on_with_the_drained_one_goes_first(
    control: Control, driver_gone: None
) -> None:
    plan = resolved(control, **FLEET)
    begun = opened(control, plan)
    assert [host for host in begun["hosts"] if "rolling_backend" in host["groups"]] == [
        {"name": "api-1", "groups": ["planned_backend", "rolling_backend"]},
        {"name": "api-2", "groups": ["planned_backend", "rolling_backend"]},
    ]
    assert begun["batches"] == [1, 1]

    drained = {**SERVERS, "api-2": {"admin": "drain", "operational": "running"}}
    now = {**FLEET, "servers": {}, "policy": POLICY, "balancers": {"lb": {"enabled": False, "servers": drained}}}
    again = opened(control, plan, begun["run"]["id"], first=rollback_plan.idle_hosts(plan, now))
    assert [host["name"] for host in again["hosts"]] == ["api-2", "api-1", "lb"]

    now["reports"] = {**FLEET["reports"], "api-2": {"msg": "unreachable"}}
    assert rollback_plan.idle_hosts(plan, now) == []
    assert rollback_plan.drained_hosts(plan, now) == ["api-2"]


@pytest.mark.parametrize("words", [{"severity": "P0"}, {"rolling": False}])
def test_behind_the_page_all_hosts_go_at_once(control: Control, words: dict[str, Any]) -> None:
    plan = resolved(control, **{**FLEET, **words})
    assert (plan["services"]["backend"]["stop_traffic"], plan["balancers"]) == (True, ["lb"])
    begun = opened(control, plan)
    assert [host["groups"] for host in begun["hosts"]] == [
        *[["planned_backend", "at_once_backend"]] * 2, ["planned_balancer", "page_balancer"],
    ]  # fmt: skip
    assert begun["batches"] == []


GONE = {**FLEET, "severity": "P0", "reports": {"api-1": READ, "api-2": {"msg": "no route to host"}}}


def test_a_host_out_of_reach_holds_a_rollback_up_until_it_is_left_out_by_name(control: Control) -> None:
    with pytest.raises(Refused, match=r"could not be read on 1 of 2 hosts \(api-2: no route to host\)") as refused:
        resolved(control, **GONE)
    assert "--without api-2" in refused.value.advice
    plan = resolved(control, **GONE, without=["api-2"])
    part = plan["services"]["backend"]
    assert (part["hosts"], part["left_out"]) == (["api-1"], {"api-2": "no route to host"})
    assert plan["asked"] == {"without": ["api-2"]}


def test_a_host_that_is_well_can_be_left_out_too(control: Control) -> None:
    part = resolved(control, **FLEET, without=["api-1"])["services"]["backend"]
    assert (part["hosts"], part["left_out"]) == (["api-2"], {"api-1": "as asked"})
    assert part["page_because"] == "there is only api-2 to serve meanwhile"


def test_a_run_that_left_a_host_out_is_taken_back_without_it(control: Control) -> None:
    run = opened(control, resolved(control, **GONE, without=["api-2"]))["run"]["id"]
    moved = {"live": READ["candidates"][0], "candidates": [READ["live"]]}
    reports = {"api-1": moved, "api-2": {"msg": "no route to host"}}
    part = resolved(control, **{**GONE, "reports": reports}, abort=run)["services"]["backend"]
    assert (part["hosts"], list(part["left_out"])) == (["api-1"], ["api-2"])
    assert part["to"]["release"] == READ["live"]["release"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"without": ["api-9"]}, "without: 'api-9' is none of api-1, api-2"),
        ({"without": ["api-1", "api-2"]}, "could not be read on 2 of 2 hosts"),
        ({"without": ["api-2"], "balancers": {}}, "would go on serving what is live there: no balancer"),
        ({"without": ["api-2"], "component": "auth"}, "without: backend leaves no host out"),
    ],
)
def test_who_can_be_left_out_is_checked(control: Control, words: dict[str, Any], said: str) -> None:
    with pytest.raises((BadInput, Refused), match=said):
        resolved(control, **{**GONE, **words})


def test_the_time_to_restore_ends_when_traffic_is_back_and_is_told_by_month(control: Control) -> None:
    run = opened(control, resolved(control))["run"]
    with Run(run["id"], run["fence"], control.directory).change("maintenance.disabled", {}):
        pass
    assert rollback_record.about(control, run["id"])["restored_after"] is None
    closed(control, run)
    (about,) = (rollback_record.about(control, one) for one in control.runs())
    journalled = [one["time"] for one in control.entries(run["id"]) if one["step"] == "maintenance.disabled"]
    assert about["opened"] <= journalled[-1] <= about["closed"]
    assert about["restored_after"] is not None
    months = [("2026-09", 80.0), ("2026-10", 30.0), ("2026-10", 50.0), ("2026-10", None)]
    runs = [{"opened": f"{month}-01T00:00:00Z", "restored_after": seconds} for month, seconds in months]
    assert rollback_record.by_month(runs) == [
        {"month": "2026-10", "runs": 2, "median": 40.0}, {"month": "2026-09", "runs": 1, "median": 80.0},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("plan", "outcome", "seconds"),
    [
        ({}, {"state": "done", "opened": "2026-11-24T03:15:00Z", "closed": "2026-11-24T03:16:00Z"}, 60.0),
        ({}, {"state": "aborted", "opened": "2026-11-24T03:15:00Z", "closed": "2026-11-24T03:16:00Z"}, None),
        ({"takes_backup": True}, {"state": "done", "opened": "2026-11-24T03:15:00Z", "closed": "x"}, None),
        ({}, {}, None),
    ],
)
def test_only_a_run_that_restored_service_has_a_time_to_restore(
    plan: dict[str, Any], outcome: dict[str, Any], seconds: float | None
) -> None:
    assert rollback_record.restored_after(plan, outcome, []) == seconds
