# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a plan says about a database that is backed up, or that goes back to a backup, and how that is told."""
from __future__ import annotations

from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import data_loss, pgbackrest
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Refused
from ansible_collections.marketsage.rollback.plugins.module_utils.postgres_tools import megabytes


def part(found: dict[str, Any] | None, accept_loss: str, anyway: bool) -> dict[str, Any]:
    """From what postgres_recovery compared; nothing where no data goes back."""
    if found is None:
        return {}
    if "backup" not in found:
        kind = BadInput if found.get("exit_code") == BadInput.exit_code else Refused
        raise kind(f"database: {found.get('msg', 'its group has no host in the inventory that could be read')}")
    chosen = found["backup"]
    _refuse_unfit(chosen, found["migrations_lost"])
    data_loss.agreement(accept_loss)
    stays = found["restored_before"] and not anyway
    facts = {key: chosen[key] for key in ("sha256", "taken_at", "proven_at", "size", "rows")}
    database = {"database": found["database"], "backup": chosen["id"], "accept_loss": accept_loss}
    return {"recovery": {"action": "none" if stays else "restore", **database, **facts}}


def _refuse_unfit(chosen: dict[str, Any], migrations_lost: int) -> None:
    if chosen["damage"]:
        raise Refused(f"backup: {chosen['id']} is damaged: {chosen['damage']}", "Choose another with 'backup'.")
    if migrations_lost:
        raise Refused(
            f"backup: {chosen['id']} lacks {migrations_lost} migrations of the database, which the live release needs",
            "Choose a newer backup with 'backup', or first roll the backend back to a release of that time.",
        )


def backup_part(takes_backup: bool, moment: str | None) -> dict[str, Any]:
    """Where a backup is taken: of now, or of how the database was at a time."""
    if not takes_backup:
        return {}
    if moment is None:
        return {"takes_backup": True}
    pgbackrest.point_in_time(moment)
    return {"takes_backup": True, "point_in_time": moment}


def restores(plan: dict[str, Any]) -> bool:
    return bool(plan.get("recovery", {}).get("action") == "restore")


def needs_database(plan: dict[str, Any]) -> bool:
    return restores(plan) or bool(plan.get("takes_backup"))


def summary(plan: dict[str, Any]) -> list[str]:
    """The plan's lines; how much would be lost differs from one look to the next."""
    if plan.get("takes_backup"):
        moment = f" of how it was at {plan['point_in_time']}" if "point_in_time" in plan else ""
        return [f"database: a backup{moment} is taken on {', '.join(plan['databases'])} and proven by a restore"]
    recovery = plan.get("recovery")
    if not recovery:
        return []
    if not restores(plan):
        before = f"was restored from backup {recovery['backup']} already, and stays (again with anyway=true)"
        return [f"database: {recovery['database']} {before}"]
    size = f"{megabytes(recovery['size'])}, {recovery['rows']} rows"
    agreed = f"agreed to: {recovery['accept_loss']}" if recovery["accept_loss"] else "no loss was agreed to"
    return [
        f"database: {recovery['database']} goes back to backup {recovery['backup']} of {recovery['taken_at']} ({size})",
        f"{agreed}; the database as it is now is kept beside it",
    ]


def counted(plan: dict[str, Any], found: dict[str, Any] | None, seconds: float) -> list[str]:
    """How old the backup is, what going back to it would lose if it were done now, and how to agree to that."""
    if not found or not restores(plan):
        return []
    age = f"backup {found['backup']['id']} is {_duration(found['backup']['age'])} old; going back to it now:"
    speaks_against = refusal(plan, found, seconds)
    return [age, *data_loss.lines(found["loss"]), *([speaks_against["advice"]] if speaks_against else [])]


def refusal(plan: dict[str, Any], found: dict[str, Any] | None, seconds: float) -> dict[str, str] | None:
    """Why this plan is not begun, and what to say so that it is; `seconds` of writing are covered too."""
    if not found or not restores(plan):
        return None
    recovery, lost = plan["recovery"], found["loss"]
    if data_loss.is_agreed(lost, recovery["backup"], data_loss.agreement(recovery["accept_loss"])):
        return None
    words = data_loss.proposal(lost, recovery["backup"], found["backup"]["age"], seconds)
    return {
        "msg": f"backup {recovery['backup']} is {_duration(found['backup']['age'])} old; {data_loss.sentence(lost)}; "
        "that was not agreed to",
        "advice": f"To give up at most so much, with what is written within {seconds:g} s: -e accept_loss={words}",
    }


def complaints(plan: dict[str, Any], reports: dict[str, Any]) -> list[str]:
    """What speaks against success."""
    lines = []
    for host in plan["databases"]:
        report = reports.get(host) or {}
        if restores(plan) and report.get("fenced") is not False:
            lines.append(f"{host}: the database is not proved to be open again")
        if plan.get("takes_backup") and (report.get("backup") or {}).get("state") != "proven":
            lines.append(f"{host}: no backup is proven")
    return lines


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
