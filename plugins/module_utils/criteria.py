# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The runbook's five success criteria of a run, each answered yes, no or unknown by what is on record of it."""
from __future__ import annotations

from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import (
    data_loss,
    planning,
    recovery_planning,
    watching,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.restore import BEFORE

YES, NO, UNKNOWN = "yes", "no", "unknown"
# A measure's answer to "is it as good as before".
_ANSWERS = {watching.BETTER: YES, watching.WORSE: NO, watching.UNKNOWN: UNKNOWN}
_SLA = {True: YES, False: NO, None: UNKNOWN}
_NOT_WATCHED = "it was not watched when traffic was back"

Criterion = dict


def answered(plan: dict[str, Any], entries: list[dict[str, Any]], watch: dict[str, Any] | None) -> list[Criterion]:
    """Each criterion with name, answer and evidence, from the plan, all journals, and the watch if there was one.

    A watch has here, beside what `watching` says, the results of the checks made at its end: `health` and `users`.
    """
    seen = watch or {"measures": [], "health": [], "users": []}
    return [
        _criterion("All services return to green status", *_checks(seen["health"])),
        _criterion("Error rates below baseline", *_measures(seen, "errors", lambda one: _ANSWERS[one["verdict"]])),
        _criterion("Response times within SLA", *_measures(seen, "latency", lambda one: _SLA[one["within_sla"]])),
        _criterion("No data loss detected", *data(plan, entries)),
        _criterion("User-facing functionality restored", *_checks(seen["users"])),
    ]


def lines(answers: list[Criterion]) -> list[str]:
    """Each answer with its evidence."""
    return [f"{one['answer']:7} {one['name']}: {one['evidence']}" for one in answers]


def _criterion(name: str, answer: str, evidence: str) -> Criterion:
    return {"name": name, "answer": answer, "evidence": evidence}


def _worst(answers: list[str]) -> str:
    """No where one is no, yes where all are yes."""
    if NO in answers:
        return NO
    return YES if answers and set(answers) == {YES} else UNKNOWN


def _checks(results: list[dict[str, Any]]) -> tuple[str, str]:
    if not results:
        return UNKNOWN, _NOT_WATCHED
    answers = [{"passed": YES, "failed": NO}.get(one["status"], UNKNOWN) for one in results if one["required"]]
    open_ones = [f"{one['name']}: {one['evidence']}" for one in results if one["status"] != "passed"]
    passed = sum(one["status"] == "passed" for one in results)
    return _worst(answers), "; ".join([f"{passed} of {len(results)} checks passed", *open_ones])


def _measures(watch: dict[str, Any], shows: str, answer: Any) -> tuple[str, str]:
    measures = [one for one in watch["measures"] if one["shows"] == shows]
    told = "; ".join(f"{one['name']}: {watching.figures(one)}" for one in measures)
    return _worst([answer(one) for one in measures]), told or _NOT_WATCHED


def data(plan: dict[str, Any], entries: list[dict[str, Any]]) -> tuple[str, str]:
    """Whether the run itself lost data, by the rows that its journals count; what they do not count is unknown."""
    outcomes = {entry["step"]: entry["data"] for entry in entries if entry["kind"] == "outcome"}
    begun = {entry["step"] for entry in entries}
    found = []
    if recovery_planning.restores(plan):
        found.append(_of_recovery(outcomes.get("database.verified")))
    if planning.schema_goes_back(plan):
        found.append(_of_archiving(outcomes.get("schema.rolled_back"), "schema.rolled_back" in begun))
    if "schema.deployed" in begun:
        found.append(_of_bringing_back(outcomes.get("schema.deployed")))
    if "redis_flushed" in begun:
        found.append((NO, "Redis was flushed, with every other key in it"))
    if plan.get("session_stores"):
        ended = outcomes.get("sessions_ended", {}).get("ended")
        found.append((YES, f"{ended} sessions ended as planned, and no other key" if ended else "no session ended"))
    if not found:
        return YES, "the run changed nothing in the database: code alone went back"
    return _worst([answer for answer, _evidence in found]), "; ".join(evidence for _answer, evidence in found)


def _of_recovery(verified: dict[str, Any] | None) -> tuple[str, str]:
    if verified is None or not verified["loss"]["known"]:
        return UNKNOWN, data_loss.sentence(verified["loss"]) if verified else "the loss was not counted"
    return (NO if verified["loss"]["rows"] else YES), data_loss.sentence(verified["loss"])


def _of_archiving(done: dict[str, Any] | None, begun: bool) -> tuple[str, str]:
    if done is None:
        why = "it is not on record what was archived" if begun else "the schema was found as it was to be"
        return UNKNOWN, why
    if "archived" not in done:
        return UNKNOWN, f"archive {done['archive']}: its rows are not on record"
    kept = [f"{_rows(each)} of {_place(each)}" for each in done["archived"] if each["rows"] is not None]
    return YES, f"all that was dropped is in archive {done['archive']}: {', '.join(kept) or 'nothing held rows'}"


def _rows(each: dict[str, Any]) -> str:
    return f"{each['rows']} rows" if each["counted"] else f"about {each['rows']} rows"


def _place(each: dict[str, Any]) -> str:
    return ".".join(filter(None, (each["table"], each["column"])))


def _of_bringing_back(done: dict[str, Any] | None) -> tuple[str, str]:
    if done is None:
        return UNKNOWN, "it is not on record what was brought back"
    back = [f"{each['restored']} rows of {_place(each)}" for each in done["restored"]]
    kept = [f"{_place(each)}: {each['reason']}" for each in done["restored"] if each["reason"] not in ("", BEFORE)]
    waiting = f"; still in the archive: {', '.join(kept)}" if kept else ""
    return YES, f"brought back: {', '.join(back) or 'nothing'}{waiting}"
