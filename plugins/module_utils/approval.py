# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Approvals: a short document that names a plan by its hash, signed with an SSH key that the inventory lists.

The document is one line of JSON in FILE, its signature is in FILE.sig as `ssh-keygen -Y sign` makes it; no server is
asked, so that an approval can be given and checked while everything else is down.
"""
from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import validate
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Refused, RollbackError
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import canonical

NAMESPACE = "marketsage-approve"
_FIELDS = {"version", "plan", "approver", "issued", "expires", "nonce"}
_LONGEST = 4096
_SSH_SECONDS = 20
# Clocks of two machines differ; a document from further ahead than this was not issued yet.
_SKEW = timedelta(minutes=2)


@dataclass(frozen=True)
class Rules:
    """Who may approve: `roles` that approvers have among `people`, and for how many seconds an approval may hold."""

    roles: list[str]
    valid_for: int
    people: dict[str, dict[str, Any]]
    allowed_signers: str | None
    revoked_signers: str | None

    def approvers(self, operator: str) -> list[str]:
        """Those who may approve what this operator does."""
        return [
            person for person, about in self.people.items() if about.get("role") in self.roles and person != operator
        ]


@dataclass(frozen=True)
class Approval:
    """An approval that was found good."""

    approver: str
    document: str
    signature: str

    @property
    def id(self) -> str:
        """The sha256 of the document, by which it is used once."""
        return hashlib.sha256(self.document.encode()).hexdigest()


def document(plan_hash: str, approver: str, valid_for: int, now: datetime | None = None) -> str:
    """What an approver signs: this plan may be carried out within `valid_for` seconds."""
    issued = (now or datetime.now(timezone.utc)).replace(microsecond=0)
    said = {
        "version": 1,
        "plan": plan_hash,
        "approver": validate.identifier(approver, "approver"),
        "issued": issued.isoformat(),
        "expires": (issued + timedelta(seconds=valid_for)).isoformat(),
        "nonce": os.urandom(16).hex(),
    }
    return canonical(said) + "\n"


def check(path: str, plan_hash: str, operator: str, rules: Rules, now: datetime | None = None) -> Approval:
    """The approval in `path`, for this plan and this operator; refused where anything about it is not as it must be."""
    validate.absolute_path(path, "approval")
    approval = Approval("", _read(path), _read(f"{path}.sig"))
    said = _parsed(approval.document)
    approver = validate.identifier(said["approver"], "approval.approver")
    _check_words(said, plan_hash, rules.valid_for, now or datetime.now(timezone.utc))
    _check_person(approver, operator, rules)
    _check_signature(approver, f"{path}.sig", approval.document, rules)
    return Approval(approver, approval.document, approval.signature)


def good_or_none(path: str, plan_hash: str, operator: str, rules: Rules) -> Approval | None:
    """The approval in `path` where it is good: one that is only preferred must not stand in the way if it is not."""
    try:
        return check(path, plan_hash, operator, rules)
    except RollbackError:
        return None


def _read(path: str) -> str:
    try:
        with open(path) as file:
            text = file.read(_LONGEST + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"approval: {path} cannot be read ({error})") from None
    if len(text) > _LONGEST:
        raise Refused(f"approval: {path} is longer than any approval")
    return text


def _parsed(text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    words = _FIELDS - {"version"}
    if not isinstance(said, dict) or set(said) != _FIELDS or not all(isinstance(said[word], str) for word in words):
        raise Refused("approval: it is no approval; see the documentation of rollback_run for its form")
    if said["version"] != 1:
        raise Refused(f"approval: it is of version {said['version']}, this is 1")
    return said


def _check_words(said: dict[str, Any], plan_hash: str, valid_for: int, now: datetime) -> None:
    if said["plan"] != plan_hash:
        raise Refused(
            f"approval: it is for plan {said['plan'][:12]}, this is plan {plan_hash[:12]}",
            "Something changed meanwhile, or it was given for another plan. Let this plan be approved.",
        )
    issued, expires = _time(said["issued"]), _time(said["expires"])
    if expires - issued > timedelta(seconds=valid_for):
        raise Refused(f"approval: it would hold for longer than the {valid_for} s that the policy allows")
    if issued > now + _SKEW:
        raise Refused(f"approval: it was issued in the future ({said['issued']})")
    if expires <= now:
        raise Refused(f"approval: it expired at {said['expires']}", "Let the plan be approved again.")


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = datetime.min
    if moment.tzinfo is None:
        raise Refused(f"approval: {text!r} is not a time with its zone")
    return moment


def _check_person(approver: str, operator: str, rules: Rules) -> None:
    if approver == operator:
        raise Refused(f"approval: {operator} cannot approve what {operator} does", "Ask somebody else.")
    role = rules.people.get(approver, {}).get("role")
    if role not in rules.roles:
        known = f"is {role}" if role else "has no role in the inventory"
        raise Refused(f"approval: {approver} {known}; the policy asks for {' or '.join(rules.roles)}")


def _check_signature(approver: str, signature: str, text: str, rules: Rules) -> None:
    if not rules.allowed_signers:
        raise Refused("approval: rollback_allowed_signers names no file, so no signature can be checked")
    signers = validate.absolute_path(rules.allowed_signers, "rollback_allowed_signers")
    if not os.path.isfile(signers):
        raise Refused(f"approval: there is no {signers} to check a signature against")
    found = _ssh_keygen("find-principals", ["-s", signature, "-f", signers], "")
    if found.returncode != 0:
        raise Refused("approval: the key that signed it is not one of the allowed signers")
    signed_by = found.stdout.split()
    # A pattern, or a key that two names share, would let one person sign as another.
    if signed_by != [approver] or _shares_a_key(approver, signers):
        raise Refused(f"approval: the key that signed it is that of {', '.join(signed_by)}, and not {approver}'s alone")
    revoked = ["-r", rules.revoked_signers] if rules.revoked_signers else []
    verify = ["-s", signature, "-f", signers, "-I", approver, "-n", NAMESPACE, *revoked]
    verified = _ssh_keygen("verify", verify, text)
    if verified.returncode != 0:
        said = (verified.stderr or verified.stdout).strip().splitlines() or ["no reason given"]
        raise Refused(f"approval: its signature does not hold: {said[-1]}")


def _shares_a_key(person: str, signers: str) -> bool:
    """Whether another line of the signers' file has a key that is this person's too."""
    with open(signers) as file:
        lines = [line.split() for line in file if line.strip() and not line.startswith("#")]
    keys = [(words[0], next((word for word in words if word.startswith("AAAA")), "")) for words in lines]
    own = {key for principal, key in keys if principal == person}
    return any(key in own for principal, key in keys if principal != person)


def _ssh_keygen(work: str, arguments: list[str], text: str) -> subprocess.CompletedProcess[str]:
    command = ["ssh-keygen", "-Y", work, *arguments]
    try:
        return subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=_SSH_SECONDS, check=False, env=_environment()
        )
    except FileNotFoundError:
        raise Refused("approval: there is no ssh-keygen on this host to check the signature") from None
    except subprocess.TimeoutExpired:
        raise Refused(f"approval: ssh-keygen gave no answer within {_SSH_SECONDS} s") from None


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
