# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Waiting that always ends."""
from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Callable


class Deadline:
    """A point on the monotonic clock, `seconds` from now."""

    def __init__(
        self,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self.seconds = seconds
        self._end = clock() + seconds

    def left(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0.0, self._end - self._clock())

    def attempts(self, interval: float, longest: float = 0) -> Iterator[int]:
        """Number attempts from 1, pausing `interval` seconds between them (growing by half up to `longest`).

        The first attempt is always made; the iteration ends when the deadline has passed.
        """
        attempt = 1
        yield attempt
        while self.left() > 0:
            self._sleep(min(interval, self.left()))
            interval = max(interval, min(interval * 1.5, longest))
            attempt += 1
            yield attempt
