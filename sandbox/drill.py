"""A drill: a sandbox of its own under load is broken, rolled back and scored."""
from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.marketsage.rollback.sandbox import scenarios, stack
from ansible_collections.marketsage.rollback.sandbox.layout import DEFAULT_PORT_BASE, Layout
from ansible_collections.marketsage.rollback.sandbox.load import Load, missing_rows

PORT_BASE = DEFAULT_PORT_BASE + 1000
RATE = 50
_LONGEST_SECONDS = 600

Say = Callable[[str], None]


@dataclass(frozen=True)
class Drill:
    """What is broken, and the procedure that has to mend it."""

    scenario: str
    procedure: str
    severity: str = "P0"


DRILLS = {
    "backend": Drill("backend-500", "backend"),
    "frontend": Drill("admin-middleware", "frontend"),
    "full-system": Drill("full-system", "full_system"),
}


def hold(drill: Drill, layout: Layout, roll_back: Callable[[str], int], say: Say) -> dict[str, Any]:
    """Hold a drill; `roll_back` gets the reason and returns the exit code.

    Returns exit_code, answers (by kind), errors, acknowledged, lost (rows), turning_points (seconds since the load
    began) and broken_at (seconds).
    """
    stack.up(layout, say)
    with Load(layout, rate=RATE, seconds=_LONGEST_SECONDS) as load:
        say(f"load: {RATE} requests a second on api., app. and admin., a tenth of them writing numbered rows")
        scenarios.break_(layout, drill.scenario, say)
        exit_code = roll_back(f"drill: {drill.scenario}")
        result = load.stop()
    return {
        "exit_code": exit_code,
        "answers": result["kinds"],
        "errors": result["errors"],
        "acknowledged": result["acknowledged"],
        "lost": len(missing_rows(layout, load.record.acknowledged)),
        "turning_points": result["turning_points"],
    }


def directory_beside(sandbox: Path) -> Path:
    """Where drills have their own sandbox, so that the user's is left alone."""
    return sandbox.with_name("drill")


def keep_record(layout: Layout, run: str) -> Path:
    """Copy a run's record out of the drill's sandbox, which goes away; where it is now."""
    kept = layout.directory.with_name("drills") / run
    shutil.copytree(layout.control / "runs" / run, kept)
    shutil.copy(layout.control / "journal" / f"{run}.jsonl", kept / "journals" / "control.jsonl")
    return kept
