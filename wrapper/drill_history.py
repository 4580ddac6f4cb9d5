"""The scores of all drills, one line of JSON each, so that one can be compared with the last like it."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.marketsage.rollback.sandbox import layout

Score = dict[str, Any]


def of_this_host() -> DrillHistory:
    """The history of the drills that were held from here."""
    return DrillHistory(layout.records_beside(layout.default_directory()))


def last_of_this_host() -> Score | None:
    """The newest score; None where no drill was held, and `error` alone where that cannot be told."""
    try:
        return next(iter(of_this_host().all()), None)
    except (OSError, ValueError) as error:
        return {"error": str(error)}


class DrillHistory:
    """The history that is kept in a directory."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "history.jsonl"

    def all(self) -> list[Score]:
        """Every score, newest first."""
        try:
            lines = self._file.read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in reversed(lines)]

    def last(self, kind: str, scenario: str) -> Score | None:
        """The newest score of a drill of that kind with that scenario."""
        alike = (one for one in self.all() if (one["kind"], one["scenario"]) == (kind, scenario))
        return next(alike, None)

    def prepare(self) -> None:
        """See that a score can be kept; OSError where it cannot."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.touch()

    def keep(self, score: Score) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps(score) + "\n")
