# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""nginx, which has no API to switch: its configuration shows the page while a file is there, and serves that file.

It looks for the file at each request, so that nothing is reloaded and the page lasts over a restart.
"""
from __future__ import annotations

import os
from contextlib import suppress

from ansible_collections.marketsage.rollback.plugins.module_utils.balancer import Seen
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Held, Unknown
from ansible_collections.marketsage.rollback.plugins.module_utils.files import fsync_directory, write_atomically


class FlagFile:
    """The page of one nginx; the file holds what users read."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self) -> Seen:
        try:
            with open(self._path, encoding="utf-8") as file:
                text = file.read().strip()
        except FileNotFoundError:
            return Seen(serving=False, lasting=False)
        except OSError as error:
            raise Unknown(f"flag_file: {self._path} cannot be read ({error.strerror}). Is the page up?") from None
        return Seen(serving=True, lasting=True, text=text)

    def enable(self, text: str) -> None:
        try:
            write_atomically(self._path, f"{text}\n", 0o644)
        except OSError as error:
            raise Held(f"flag_file: {self._path} cannot be written ({error.strerror})") from None

    def disable(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        fsync_directory(os.path.dirname(self._path))
