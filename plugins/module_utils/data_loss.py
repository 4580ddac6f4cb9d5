# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Acknowledged rows that going back to a backup would lose: how many, how they are told, and who has agreed to that."""
from __future__ import annotations

import math
import re
from typing import NamedTuple

from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput

# {"known": bool, "why": str, "rows": int, "tables": {name: {"lost": int, "returned": int, "changed": int}}}
Loss = dict
_FORM = re.compile(r"(\d{1,15}|unknown)@([A-Za-z0-9_][A-Za-z0-9_.@-]{0,99})", re.ASCII)


class Agreement(NamedTuple):
    """What an operator agreed to: losing at most so many rows (any number where None) by going back to a backup."""

    rows: int | None
    backup: str


def agreement(text: str) -> Agreement | None:
    """From ROWS@BACKUP or unknown@BACKUP; None where nothing was said."""
    if not text:
        return None
    said = _FORM.fullmatch(text)
    if not said:
        raise BadInput(f"accept_loss: {text[:80]!r} is not ROWS@BACKUP, as the plan proposes it")
    return Agreement(None if said[1] == "unknown" else int(said[1]), said[2])


def is_agreed(loss: Loss, backup: str, said: Agreement | None) -> bool:
    if loss["known"] and not loss["rows"]:
        return True
    if said is None or said.backup != backup:
        return False
    return said.rows is None or (loss["known"] and loss["rows"] <= said.rows)


def proposal(loss: Loss, backup: str, age: float = 0, seconds: float = 0) -> str:
    """The agreement that covers this loss, and what `seconds` more add to it at the rate since the backup."""
    if not loss["known"]:
        return f"unknown@{backup}"
    return f"{loss['rows'] + math.ceil(loss['rows'] * seconds / age if age else 0)}@{backup}"


def lines(loss: Loss) -> list[str]:
    """The loss in words, table by table."""
    if not loss["known"]:
        return [f"lost: unknown, because the database could not be compared with the backup ({loss['why']})"]
    told = [f"lost: {loss['rows']} rows that were acknowledged after the backup"]
    return told + [f"  {name}: {_counts(counts)}" for name, counts in loss["tables"].items()]


def _counts(counts: dict[str, int]) -> str:
    words = {
        "lost": "{} lost",
        "changed": "{} become again what they were (the damage, and every change since)",
        "returned": "{} that are gone come back",
    }
    return ", ".join(text.format(counts[kind]) for kind, text in words.items() if counts[kind])


def sentence(loss: Loss) -> str:
    return "; ".join(line.strip() for line in lines(loss))
