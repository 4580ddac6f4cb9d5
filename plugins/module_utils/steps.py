# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long the steps of a run take: measured, kept with the run, and from earlier runs the estimate for the next."""
from __future__ import annotations

import os
from collections.abc import Callable
from statistics import median
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils.files import read_json, write_atomically
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import canonical

_FILE = "steps.json"
# So many of the newest runs tell how long a step takes.
_RUNS = 5


class StepTimes:
    """Seconds spent in each step, in which anything was done, by the name of its play."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = clock
        self._name = ""
        self._began = 0.0
        self._worked = False

    def enter(self, name: str) -> None:
        """A step begins, and the one before it ends."""
        now = self._clock()
        if self._worked:
            self.seconds[self._name] = round(self.seconds.get(self._name, 0.0) + now - self._began, 2)
        self._name, self._began, self._worked = name, now, False

    def worked(self) -> None:
        """Something was done in this step."""
        self._worked = True

    def keep(self, directory: str) -> None:
        """Write them down in a run's record."""
        self.enter("")
        write_atomically(os.path.join(directory, _FILE), canonical(self.seconds))


def kept(directory: str) -> dict[str, float]:
    """The seconds of each step that are on record of a run; empty where none are."""
    seconds: dict[str, float] = read_json(os.path.join(directory, _FILE), {})
    return seconds


def estimates(runs_directory: str, procedure: str) -> dict[str, float]:
    """Median seconds of each step in the newest runs of a procedure that ended well; empty where there was none."""
    measured: dict[str, list[float]] = {}
    for seconds in _newest(runs_directory, procedure):
        for name, value in seconds.items():
            measured.setdefault(name, []).append(value)
    return {name: round(median(values), 1) for name, values in measured.items()}


def _newest(runs_directory: str, procedure: str) -> list[dict[str, Any]]:
    """The step times of the newest runs, newest first; a run's id begins with its time and names its procedure."""
    names = sorted(os.listdir(runs_directory), reverse=True) if os.path.isdir(runs_directory) else []
    found: list[dict[str, Any]] = []
    for name in names:
        if name.split("-")[1:2] != [procedure] or len(found) == _RUNS:
            continue
        outcome = read_json(os.path.join(runs_directory, name, "outcome.json"), {})
        seconds = kept(os.path.join(runs_directory, name))
        if seconds and outcome.get("state") == "done":
            found.append(seconds)
    return found
