# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How far a run has come and how long its steps take: kept with it, and of earlier runs the estimate for the next."""
from __future__ import annotations

import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils.files import read_json, write_atomically
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import canonical

_FILE = "steps.json"
# So many of the newest runs tell how long a step takes.
_RUNS = 5


class Steps:
    """How far a playbook has come: what became of each play, by name, and the seconds spent where anything was done.

    A play is waiting, running, done, skipped (it had nothing to do) or failed.
    """

    def __init__(self, names: list[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.status = dict.fromkeys(names, "waiting")
        self.seconds: dict[str, float] = {}
        self._clock = clock
        self._current = ""
        self._began = 0.0
        self._worked = False

    def enter(self, name: str) -> None:
        """A play begins, which ends the one before; two plays of one name are one step."""
        if name == self._current:
            return
        self.leave()
        self._current, self._began, self._worked = name, self._clock(), False
        self.status[name] = "running"

    def result(self, ok: bool) -> None:
        """A task of the current play returned."""
        if ok:
            self._worked = True
        else:
            self.status[self._current] = "failed"

    def leave(self) -> None:
        """The current play has ended."""
        name, self._current = self._current, ""
        if self._worked:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + self._clock() - self._began, 2)
        if self.status.get(name) == "running":
            self.status[name] = "done" if self._worked else "skipped"
        self._worked = False

    def keep(self, directory: str) -> None:
        """Write the seconds down in a run's record."""
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


def forecast(estimated: dict[str, float], allowed: float, builds: bool) -> list[str]:
    """How long a run may take by these estimates, against the seconds that are allowed, in lines for a human."""
    if not estimated:
        return ["time: unknown, no earlier run of this procedure tells"]
    total, slowest = sum(estimated.values()), max(estimated, key=lambda name: estimated[name])
    longest = f"longest: {slowest}, {estimated[slowest]:.0f} s"
    lines = [f"time: about {total:.0f} s of {allowed:.0f} s by earlier runs; {longest}"]
    if total > allowed:
        faster = "; a release that is built on every host is faster (rollback status)" if builds else ""
        lines.append(f"time: IT WILL NOT FIT into {allowed:.0f} s{faster}")
    return lines


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
