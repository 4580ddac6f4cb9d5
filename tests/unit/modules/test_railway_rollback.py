"""railway_rollback against a scripted wire, a Railway that obeys and Railways that lie."""
from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.marketsage.rollback.plugins.module_utils import api, railway
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Refused
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import Journal
from ansible_collections.marketsage.rollback.plugins.module_utils.railway import Deployment, State
from ansible_collections.marketsage.rollback.plugins.modules import railway_rollback
from ansible_collections.marketsage.rollback.tests.unit.modules.railway_wire import (
    ACCEPTED,
    AFTER,
    BAD,
    BAD_LIVE,
    BEFORE,
    GOOD,
    GOOD_GONE,
    LOCATE,
    OLD_GONE,
    OLDER,
    REPORT,
    TOKEN,
    UNDER_WAY,
    Answer,
    Wire,
    edges,
    lost,
    node,
    reply,
    state_of,
)

Call = Callable[..., dict[str, Any]]


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text(TOKEN)
    return str(path)


@pytest.fixture
def wired(monkeypatch: pytest.MonkeyPatch, call_module: Call, token_file: str, run: dict[str, Any]) -> Call:
    """Call the module against a wire, which must have been used up."""

    def call(wire: Wire | list[tuple[str, Answer]], **arguments: Any) -> dict[str, Any]:
        wire = Wire(list(wire)) if isinstance(wire, list) else wire
        monkeypatch.setattr(api, "request", wire.request)
        given = {
            "token_file": token_file,
            "token_type": "project",
            "service": "marketsage-frontend",
            "poll_interval": 0.01,
            "timeout": 20,
            "run": run,
            **arguments,
        }
        result = call_module(railway_rollback, **given)
        assert wire.script == []
        assert TOKEN not in json.dumps(result)
        return result

    return call


@pytest.fixture
def journal(run: dict[str, Any]) -> Journal:
    return Journal(f"{run['state_dir']}/journal/{run['id']}.jsonl")


def kinds(journal: Journal) -> list[str]:
    return [entry["kind"] for entry in journal.entries()]


def test_check_mode_reads_and_sends_nothing_else(wired: Call, journal: Journal) -> None:
    result = wired([*LOCATE, ("State", BEFORE), *REPORT], check=True)
    assert (result["changed"], result["method"]) == (True, "rollback")
    assert (result["live"]["id"], result["target"]["id"]) == ("bad", "good")
    assert [one["id"] for one in result["candidates"]] == ["good", "old"]
    assert result["place"] == {"project": "marketsage", "environment": "production", "service": "marketsage-frontend"}
    assert result["variables_changed"] == ["A"]
    assert result["auto_deploy"] is True
    assert result["restored"] is None
    assert result["diff"]["before"]["commit"] == BAD
    assert result["diff"]["after"] == {"commit": GOOD, "branch": "main", "message": "Release good"}
    assert journal.entries() == []


def test_what_is_returned_is_what_is_documented(wired: Call) -> None:
    documented = yaml.safe_load(railway_rollback.RETURN)
    result = wired([*LOCATE, ("State", BEFORE), *REPORT, ("Rollback", ACCEPTED), ("State", AFTER)])
    assert set(documented) == set(result) - {"changed", "diff", "invocation"}
    for name in ("live", "target", "restored"):
        assert set(documented[name]["contains"]) == set(result[name])


def test_the_wire_of_a_rollback(wired: Call, journal: Journal) -> None:
    wire = Wire([*LOCATE, ("State", BEFORE), *REPORT, ("Rollback", ACCEPTED), ("State", UNDER_WAY), ("State", AFTER)])
    result = wired(wire)
    assert (result["restored"]["id"], result["restored"]["commit"]) == ("new", GOOD)
    sent = [one["variables"] for one in wire.sent if one["operationName"] == "Rollback"]
    assert sent == [{"id": "good"}]
    assert wire.headers == {"Project-Access-Token": TOKEN}
    assert kinds(journal) == ["intent", "outcome"]


def test_a_pinned_deployment_beyond_the_history_is_asked_for_by_its_id(wired: Call) -> None:
    before = state_of(BAD_LIVE, GOOD_GONE, live="bad")
    restored = state_of(node("new", OLDER, "SUCCESS"), node("bad", BAD), live="new")
    pinned = ("Deployment", {"deployment": OLD_GONE})
    wire = Wire([*LOCATE, ("State", before), pinned, *REPORT, ("Rollback", ACCEPTED), ("State", restored)])
    assert wired(wire, deployment="old")["restored"]["commit"] == OLDER


def test_a_deployment_of_another_service_is_refused(wired: Call) -> None:
    foreign = ("Deployment", {"deployment": {**OLD_GONE, "id": "foreign", "serviceId": "s2"}})
    failed = wired([*LOCATE, ("State", BEFORE), foreign], deployment="foreign")
    assert failed["msg"] == "deployment: foreign is not one of marketsage-frontend in production"


@pytest.mark.parametrize("pin", [{"commit": BAD}, {"deployment": "bad"}])
def test_what_is_live_already_is_not_restored(wired: Call, pin: dict[str, str]) -> None:
    result = wired([*LOCATE, ("State", BEFORE), REPORT[1]], **pin)
    assert (result["changed"], result["method"], result["variables_changed"]) == (False, "none", [])
    assert result["diff"]["before"] == result["diff"]["after"]


def test_an_account_token_finds_its_project_on_any_page(wired: Call) -> None:
    pages = [
        ("Projects", {"projects": edges({"id": "p0", "name": "other"}, after="cursor")}),
        ("Projects", {"projects": edges({"id": "p1", "name": "marketsage"})}),
    ]
    wire = Wire([*pages, LOCATE[1], ("State", BEFORE), *REPORT])
    wired(wire, check=True, token_type="account", project="marketsage", environment="e1")
    assert wire.headers == {"Authorization": f"Bearer {TOKEN}"}
    assert wire.sent[1]["variables"]["after"] == "cursor"


def test_a_name_that_means_two_is_refused(wired: Call) -> None:
    twice = ("Projects", {"projects": edges({"id": "p0", "name": "Marketsage"}, {"id": "p1", "name": "marketsage"})})
    failed = wired([twice], token_type="account", project="marketsage", environment="production")
    assert failed["msg"].startswith("project: 'marketsage' is ambiguous")


@pytest.mark.parametrize(
    ("argument", "named"), [({"project": "other"}, "project:"), ({"environment": "staging"}, "environment:")]
)
def test_a_project_token_of_another_place_is_refused(wired: Call, argument: dict[str, str], named: str) -> None:
    assert wired(list(LOCATE), **argument)["msg"].startswith(named)


def test_the_history_is_read_over_its_pages(wired: Call) -> None:
    first = state_of(BAD_LIVE, live="bad", after="cursor")
    second = state_of(GOOD_GONE, OLD_GONE, live=None)
    second["serviceInstance"] = first["serviceInstance"]
    result = wired([*LOCATE, ("State", first), ("State", second), *REPORT], check=True)
    assert result["target"]["id"] == "good"


def test_what_railway_does_not_tell_is_null(wired: Call) -> None:
    refusal = {"errors": [{"message": "Not Authorized"}], "data": None}
    result = wired([*LOCATE, ("State", BEFORE), ("Variables", refusal), ("AutoDeploy", refusal)], check=True)
    assert (result["variables_changed"], result["auto_deploy"]) == (None, None)


def test_an_unknown_snapshot_is_null(wired: Call) -> None:
    unknown = ("Variables", {"live": None, "target": None})
    assert wired([*LOCATE, ("State", BEFORE), unknown, REPORT[1]], check=True)["variables_changed"] is None


@pytest.mark.parametrize("message", ["Not Authorized", "Project Token not found"])
def test_a_refused_token_is_named(wired: Call, message: str) -> None:
    failed = wired([("ProjectToken", {"errors": [{"message": message}], "data": None})])
    assert failed["exit_code"] == 2
    assert failed["msg"].startswith(f"token_file: Railway says '{message}'")


def test_neither_data_nor_errors_is_no_answer(wired: Call) -> None:
    failed = wired([("ProjectToken", {"data": None, "errors": []})])
    assert failed["exit_code"] == 3
    assert "neither data nor errors" in failed["msg"]


def test_a_railway_that_is_away_is_a_refusal(wired: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    away = api.ConnectionFailed("POST https://backboard.railway.com/graphql/v2: refused", maybe_applied=False)
    failed = wired([("ProjectToken", away)], timeout=1)
    assert (failed["exit_code"], "cannot be read" in failed["msg"]) == (3, True)


def test_an_error_to_the_mutation_is_a_refusal(wired: Call, journal: Journal) -> None:
    refused = ("Rollback", {"errors": [{"message": "Problem processing request"}], "data": None})
    failed = wired([*LOCATE, ("State", BEFORE), *REPORT, refused])
    assert (failed["exit_code"], failed["msg"]) == (3, "Railway says 'Problem processing request'")
    assert kinds(journal) == ["intent", "failed"]


def test_an_answer_of_false_is_a_refusal(wired: Call) -> None:
    failed = wired([*LOCATE, ("State", BEFORE), *REPORT, ("Rollback", {"deploymentRollback": False})])
    assert failed["exit_code"] == 3


def test_a_lost_answer_is_resolved_by_reading(wired: Call) -> None:
    wire = Wire([*LOCATE, ("State", BEFORE), *REPORT, ("Rollback", lost()), ("State", UNDER_WAY), ("State", AFTER)])
    assert wired(wire)["restored"]["id"] == "new"


def test_a_gateway_error_to_the_mutation_is_resolved_by_reading(wired: Call) -> None:
    gateway = api.UnexpectedStatus("POST answered 502", api.Response(502, {}, b""))
    wire = Wire([*LOCATE, ("State", BEFORE), *REPORT, ("Rollback", gateway), ("State", UNDER_WAY), ("State", AFTER)])
    assert wired(wire)["restored"]["id"] == "new"


def test_what_is_under_way_already_is_adopted(wired: Call) -> None:
    result = wired([*LOCATE, ("State", UNDER_WAY), *REPORT, ("State", AFTER)], commit=GOOD)
    assert (result["adopted"], result["restored"]["id"]) == ("new", "new")


def test_an_interrupted_order_is_looked_for_before_another_is_sent(
    wired: Call, journal: Journal, run: dict[str, Any]
) -> None:
    Path(journal.path).parent.mkdir(parents=True)
    journal.append(run["id"], 1, railway_rollback.STEP, "intent", {})
    wire = Wire([*LOCATE, ("State", BEFORE), *REPORT, ("State", UNDER_WAY), ("State", AFTER)])
    assert wired(wire)["restored"]["id"] == "new"
    assert journal.entries()[-1]["data"] == {"ordered": "before the interruption"}


def test_another_deployment_that_goes_live_is_reported(wired: Call) -> None:
    overtaken = state_of(node("push", OLDER, "SUCCESS"), node("bad", BAD), GOOD_GONE, live="push")
    failed = wired([*LOCATE, ("State", BEFORE), *REPORT, ("Rollback", ACCEPTED), ("State", overtaken)])
    assert failed["exit_code"] == 20
    assert f"deployment push of commit {OLDER} (SUCCESS) went live over the rollback" in failed["msg"]


@pytest.mark.parametrize("status", ["FAILED", "CRASHED", "REMOVED", "SKIPPED", "CANCELLED"])
def test_a_bad_end_is_reported_with_its_diagnosis(wired: Call, status: str) -> None:
    ended = state_of(node("new", GOOD, status, diagnosis="out of memory"), BAD_LIVE, GOOD_GONE, live="bad")
    failed = wired([*LOCATE, ("State", BEFORE), *REPORT, ("Rollback", ACCEPTED), ("State", ended)])
    assert failed["exit_code"] == 20
    assert f"({status}) did not become live: out of memory; live is deployment bad" in failed["msg"]


def test_of_several_that_result_the_one_that_becomes_live_is_waited_for(wired: Call) -> None:
    first = node("first", GOOD, "SUCCESS", createdAt="2026-11-23T08:00:00.000Z")
    second = node("second", GOOD, "DEPLOYING", createdAt="2026-11-23T08:00:01.000Z")
    one_live = state_of(second, first, node("bad", BAD), GOOD_GONE, live="first")
    settled = state_of({**second, "status": "SUCCESS"}, {**first, "status": "REMOVED"}, live="second")
    wire = [*LOCATE, ("State", BEFORE), *REPORT, ("Rollback", ACCEPTED), ("State", one_live), ("State", settled)]
    assert wired(wire)["restored"]["id"] == "second"


class Deaf(Wire):
    """Loses the first order before it is applied, and obeys the second."""

    def __init__(self) -> None:
        super().__init__([*LOCATE, ("State", BEFORE), *REPORT, ("Rollback", lost())])
        self.heard = False

    def respond(self, operation: str, variables: dict[str, Any]) -> api.Response:
        if self.script:
            return super().respond(operation, variables)
        self.heard = self.heard or operation == "Rollback"
        return reply(ACCEPTED if operation == "Rollback" else AFTER if self.heard else BEFORE)


def test_an_order_that_was_not_heard_is_given_once_more(wired: Call, journal: Journal) -> None:
    deaf = Deaf()
    assert wired(deaf)["restored"]["id"] == "new"
    assert [one["operationName"] for one in deaf.sent].count("Rollback") == 2
    assert kinds(journal) == ["intent", "outcome"]


class Liar(Wire):
    """Answers well until the mutation, says yes to it, and shows the same state ever after."""

    def __init__(self, ever_after: Answer) -> None:
        super().__init__([*LOCATE, ("State", BEFORE), *REPORT, ("Rollback", ACCEPTED)])
        self.ever_after = ever_after

    def respond(self, operation: str, variables: dict[str, Any]) -> api.Response:
        return super().respond(operation, variables) if self.script else reply(self.ever_after)

    def mutations(self) -> int:
        return [one["operationName"] for one in self.sent].count("Rollback")


def test_a_yes_after_which_nothing_happens_is_no_success(wired: Call) -> None:
    liar = Liar(BEFORE)
    failed = wired(liar, timeout=1)
    assert failed["exit_code"] == 20
    assert "no new deployment; live is deployment bad" in failed["msg"]
    assert liar.mutations() == 1


def test_a_success_that_is_not_live_is_no_success(wired: Call) -> None:
    failed = wired(Liar(state_of(node("new", GOOD, "SUCCESS"), BAD_LIVE, GOOD_GONE, live="bad")), timeout=1)
    assert failed["exit_code"] == 20
    assert f"deployment new of commit {GOOD} (SUCCESS); live is deployment bad of commit {BAD}" in failed["msg"]


def test_a_success_of_another_commit_is_no_success(wired: Call) -> None:
    failed = wired(Liar(state_of(node("new", OLDER, "SUCCESS"), node("bad", BAD), GOOD_GONE, live="new")), timeout=1)
    assert failed["exit_code"] == 20


def test_a_state_that_cannot_be_read_any_more_is_unknown(wired: Call) -> None:
    failed = wired(Liar({"errors": [{"message": "Not Authorized"}], "data": None}), timeout=1)
    assert failed["exit_code"] == 30
    assert "Which deployment is live?" in failed["msg"]


# Which deployment is chosen


def state(*nodes: dict[str, Any], live: str | None) -> State:
    deployments = tuple(map(Deployment.of, nodes))
    return State(deployments, tuple(one for one in deployments if one.id == live))


def wish(**given: Any) -> railway_rollback.Wish:
    return railway_rollback.Wish(**{"pinned": None, "commit": None, "avoid": (), "may_redeploy": False, **given})


GONE = {"canRollback": False}


@pytest.mark.parametrize(
    ("nodes", "wished", "target", "method"),
    [
        ([BAD_LIVE, GOOD_GONE, OLD_GONE], {}, "good", "rollback"),
        ([BAD_LIVE, GOOD_GONE, OLD_GONE], {"avoid": (GOOD,)}, "old", "rollback"),
        ([BAD_LIVE, node("good", BAD), OLD_GONE], {}, "old", "rollback"),
        ([BAD_LIVE, node("good", GOOD, "FAILED", canRollback=True), OLD_GONE], {}, "old", "rollback"),
        ([node("later", OLDER), BAD_LIVE, GOOD_GONE], {}, "good", "rollback"),
        ([BAD_LIVE, node("good", None), OLD_GONE], {}, "old", "rollback"),
        ([BAD_LIVE, node("good", GOOD, **GONE), OLD_GONE], {"may_redeploy": True}, "old", "rollback"),
        ([BAD_LIVE, node("good", GOOD, **GONE)], {"may_redeploy": True}, "good", "redeploy"),
        ([BAD_LIVE, GOOD_GONE, OLD_GONE], {"commit": OLDER}, "old", "rollback"),
        ([BAD_LIVE, GOOD_GONE, OLD_GONE], {"pinned": Deployment.of(OLD_GONE)}, "old", "rollback"),
        ([BAD_LIVE, GOOD_GONE], {"commit": BAD}, "bad", "none"),
        ([node("bad", BAD, "SLEEPING"), GOOD_GONE], {}, "good", "rollback"),
    ],
)
def test_the_target(nodes: list[dict[str, Any]], wished: dict[str, Any], target: str, method: str) -> None:
    decision = railway_rollback.decide(state(*nodes, live="bad"), wish(**wished))
    assert (decision.target.id, decision.method) == (target, method)


def test_a_service_that_crashed_goes_back_from_what_crashed() -> None:
    decision = railway_rollback.decide(state(node("bad", BAD, "CRASHED"), GOOD_GONE, live=None), wish())
    assert (decision.current.id, decision.target.id) == ("bad", "good")


@pytest.mark.parametrize(
    ("nodes", "wished", "said"),
    [
        ([], {}, "never been deployed"),
        ([BAD_LIVE], {}, "nothing to go back to"),
        ([BAD_LIVE, GOOD_GONE], {"avoid": (GOOD,)}, "nothing to go back to"),
        ([BAD_LIVE, node("good", GOOD, **GONE)], {}, "image gone"),
        ([BAD_LIVE, GOOD_GONE], {"commit": GOOD, "avoid": (GOOD,)}, "marked bad"),
        ([BAD_LIVE, GOOD_GONE], {"commit": OLDER}, "cannot put back commit"),
        ([BAD_LIVE, node("good", GOOD, "FAILED")], {"commit": GOOD}, "cannot put back commit"),
        ([node("push", OLDER, "BUILDING"), BAD_LIVE, GOOD_GONE], {}, "is under way"),
        ([node("push", None, "BUILDING"), BAD_LIVE], {"pinned": Deployment.of(node("good", None))}, "is under way"),
    ],
)
def test_where_there_is_no_target(nodes: list[dict[str, Any]], wished: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        railway_rollback.decide(state(*nodes, live="bad"), wish(**wished))


def test_retention_is_counted_from_the_removal() -> None:
    now = datetime(2026, 11, 22, 9, 1, tzinfo=UTC)
    removed = Deployment.of(GOOD_GONE)
    assert railway.retention_left("pro", removed, now) == 119 * 3600
    assert railway.retention_left("hobby", removed, now) == 71 * 3600
    assert railway.retention_left("enterprise", removed, now) is None
    assert railway.retention_left("pro", Deployment.of(BAD_LIVE), now) is None
    unreadable = Deployment.of(node("good", GOOD, statusUpdatedAt="yesterday"))
    assert railway.retention_left("pro", unreadable, now) is None
