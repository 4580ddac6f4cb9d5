"""Approvals with real keys and the real ssh-keygen: one way of being good, many of being refused."""
from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils import approval
from ansible_collections.marketsage.rollback.plugins.module_utils.approval import Rules
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import RollbackError

pytestmark = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not here")

PLAN, OTHER_PLAN = "a" * 64, "b" * 64
OPERATOR = "ann"
NOW = datetime(2026, 11, 24, 3, 15, tzinfo=UTC)
ROLES = {"ann": "engineer", "bob": "engineer", "lea": "team_lead", "tim": "team_lead"}


@dataclass
class Keys:
    """Key pairs of several people in one directory, and the signers' file that lists them."""

    directory: Path
    revoked: bool = False
    roles: dict[str, str] = field(default_factory=lambda: dict(ROLES))

    def make(self, name: str) -> Path:
        key = self.directory / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(key)], check=True)
        return key

    def public(self, name: str) -> str:
        return " ".join((self.directory / f"{name}.pub").read_text().split()[:2])

    @property
    def signers(self) -> Path:
        return self.directory / "allowed_signers"

    def allow(self, *lines: str) -> None:
        self.signers.write_text("".join(f"{line}\n" for line in lines))

    def rules(self) -> Rules:
        people = {name: {"role": role} for name, role in self.roles.items()}
        revoked = str(self.directory / "lea.pub") if self.revoked else None
        return Rules(["team_lead"], 3600, people, str(self.signers), revoked)

    def sign(self, text: str, key: str, namespace: str = approval.NAMESPACE) -> Path:
        path = self.directory / "approval.json"
        path.write_text(text)
        Path(f"{path}.sig").unlink(missing_ok=True)
        command = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(self.directory / key), str(path)]
        subprocess.run(command, check=True, capture_output=True)
        return path


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    keys = Keys(tmp_path)
    for name in ROLES:
        keys.make(name)
    keys.allow(*(f'{name} namespaces="{approval.NAMESPACE}" {keys.public(name)}' for name in ROLES))
    return keys


def said(plan: str = PLAN, approver: str = "lea", valid_for: int = 900, now: datetime = NOW) -> str:
    return approval.document(plan, approver, valid_for, now)


def altered(**words: Any) -> str:
    return json.dumps({**json.loads(said()), **words})


def check(keys: Keys, path: Path, now: datetime = NOW + timedelta(seconds=60)) -> approval.Approval:
    return approval.check(str(path), PLAN, OPERATOR, keys.rules(), now)


def test_a_team_leads_approval_of_this_plan_is_good(keys: Keys) -> None:
    good = check(keys, keys.sign(said(), "lea"))
    assert good.approver == "lea"
    assert len(good.id) == 64
    assert (good.document, good.signature) == (
        (keys.directory / "approval.json").read_text(),
        (keys.directory / "approval.json.sig").read_text(),
    )


def test_two_approvals_of_one_plan_are_told_apart() -> None:
    assert said() != said()


def tampered(keys: Keys) -> Path:
    path = keys.sign(said(), "lea")
    path.write_text(said(valid_for=3600))
    return path


def unsigned(keys: Keys) -> Path:
    path = keys.sign(said(), "lea")
    Path(f"{path}.sig").unlink()
    return path


def garbled(keys: Keys) -> Path:
    path = keys.sign(said(), "lea")
    Path(f"{path}.sig").write_text("-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n")
    return path


def by_a_stranger(keys: Keys) -> Path:
    keys.make("eve")
    return keys.sign(said(), "eve")


def with_a_shared_key(keys: Keys) -> Path:
    keys.allow(f"lea {keys.public('ann')}", f"ann {keys.public('ann')}")
    return keys.sign(said(), "ann")


def under_a_pattern(keys: Keys) -> Path:
    keys.allow(f"* {keys.public('ann')}")
    return keys.sign(said(), "ann")


def revoked(keys: Keys) -> Path:
    keys.revoked = True
    return keys.sign(said(), "lea")


def outdated_key(keys: Keys) -> Path:
    keys.allow(f'lea valid-before="20200101" {keys.public("lea")}')
    return keys.sign(said(), "lea")


def no_longer_lead(keys: Keys) -> Path:
    keys.roles["lea"] = "engineer"
    return keys.sign(said(), "lea")


def unknown_person(keys: Keys) -> Path:
    del keys.roles["lea"]
    return keys.sign(said(), "lea")


def no_signers(keys: Keys) -> Path:
    path = keys.sign(said(), "lea")
    keys.signers.unlink()
    return path


def signing(text: Callable[[], str], key: str = "lea", **options: Any) -> Callable[[Keys], Path]:
    return lambda keys: keys.sign(text(), key, **options)


BAD: list[tuple[str, Callable[[Keys], Path], str]] = [
    ("for another plan", signing(lambda: said(plan=OTHER_PLAN)), "it is for plan bbbbbbbbbbbb"),
    ("made by the operator", signing(lambda: said(approver="ann"), "ann"), "ann cannot approve what ann does"),
    ("by the operator in another's name", signing(said, "ann"), "not lea's alone"),
    ("by a lead in another's name", signing(said, "tim"), "not lea's alone"),
    ("by one without the role", signing(lambda: said(approver="bob"), "bob"), "bob is engineer"),
    ("by a former lead", no_longer_lead, "lea is engineer"),
    ("by one whom nobody knows", unknown_person, "lea has no role"),
    ("by a key that is not listed", by_a_stranger, "not one of the allowed signers"),
    ("by a key that two share", with_a_shared_key, "not lea's alone"),
    ("by a key listed for a pattern", under_a_pattern, "not lea's alone"),
    ("by a revoked key", revoked, "does not hold"),
    ("by a key past its time", outdated_key, "approval: "),
    ("made for something else", signing(said, namespace="file"), "does not hold"),
    ("with the time changed after signing", tampered, "does not hold"),
    ("without signature", unsigned, "cannot be read"),
    ("with a broken signature", garbled, "approval: "),
    ("expired", signing(lambda: said(now=NOW - timedelta(hours=1))), "it expired at"),
    ("from the future", signing(lambda: said(now=NOW + timedelta(hours=1))), "in the future"),
    ("good for too long", signing(lambda: said(valid_for=86400)), "longer than the 3600 s"),
    ("with a word too many", signing(lambda: altered(role="team_lead")), "it is no approval"),
    ("with a time that is none", signing(lambda: altered(expires="tomorrow")), "is not a time"),
    ("with a time without zone", signing(lambda: altered(expires="2026-11-24T03:25:00")), "is not a time"),
    ("of another version", signing(lambda: altered(version=2)), "of version 2"),
    ("by a person whose name is an option", signing(lambda: altered(approver="-oops")), "approval.approver"),
    ("that is not JSON", signing(lambda: "yes, do it\n"), "it is no approval"),
    ("longer than any", signing(lambda: said() + " " * 5000), "longer than any"),
    ("where there is no list of signers", no_signers, "there is no"),
]


@pytest.mark.parametrize(("make", "said"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_an_approval_is_refused(keys: Keys, make: Callable[[Keys], Path], said: str) -> None:
    with pytest.raises(RollbackError) as refused:
        check(keys, make(keys))
    assert said in str(refused.value)
    assert refused.value.exit_code in (2, 3)
