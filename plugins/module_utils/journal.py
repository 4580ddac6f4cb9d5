# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The record of a run on one host: append-only JSON lines, each fsynced and chained to the one before by sha256."""
from __future__ import annotations

import hashlib
import json
import os
import socket
from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Unknown
from ansible_collections.marketsage.rollback.plugins.module_utils.files import fsync_directory

GENESIS = "0" * 64


def now() -> str:
    """The time as the journal writes it: ISO 8601, UTC, milliseconds."""
    return later(0)


def later(seconds: float) -> str:
    """The time in so many seconds, written likewise."""
    moment = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def canonical(value: Any) -> str:
    """JSON of one form for equal values, so that it can be hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()


class Journal:
    """One file of entries: seq, time, run, fence, host, step, kind (intent, outcome, failed), data, prev, hash."""

    def __init__(self, path: str) -> None:
        self.path = path

    def entries(self) -> list[dict[str, Any]]:
        """All entries, oldest first; a last line torn by a kill is no entry. Unknown where the chain is broken."""
        entries: list[dict[str, Any]] = []
        for line in self._whole_lines():
            entry = json.loads(line)
            body = {key: value for key, value in entry.items() if key != "hash"}
            head = entries[-1]["hash"] if entries else GENESIS
            if entry["prev"] != head or digest(body) != entry["hash"]:
                raise Unknown(
                    f"{self.path}: entry {entry.get('seq')} was altered or an entry is missing. Who changed the record?"
                )
            entries.append(entry)
        return entries

    def head(self) -> str:
        """The newest entry's hash, which stands for all before it."""
        entries = self.entries()
        return str(entries[-1]["hash"]) if entries else GENESIS

    def append(self, run: str, fence: int, step: str, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        """Write one entry to disk and return it."""
        entries = self.entries()
        entry: dict[str, Any] = {
            "seq": len(entries) + 1,
            "time": now(),
            "run": run,
            "fence": fence,
            "host": socket.gethostname(),
            "step": step,
            "kind": kind,
            "data": data,
            "prev": entries[-1]["hash"] if entries else GENESIS,
        }
        entry["hash"] = digest(entry)
        self._append_line(canonical(entry))
        return entry

    def _whole_lines(self) -> list[str]:
        try:
            with open(self.path) as file:
                text = file.read()
        except FileNotFoundError:
            return []
        return text.split("\n")[:-1]

    def _append_line(self, line: str) -> None:
        created = not os.path.exists(self.path)
        with open(self.path, "a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if created:
            fsync_directory(os.path.dirname(self.path))
