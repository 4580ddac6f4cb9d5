"""Faults that a test or drill orders: each meets the next calls of one operation."""
from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

KINDS = {
    "delay": "answers after `seconds`",
    "refuse": "answers with an error and does nothing",
    "drop_before": "closes the connection and does nothing",
    "drop_after": "does it and closes the connection without an answer",
    "duplicate": "does it twice",
    "stuck": "the deployment that results never leaves DEPLOYING",
    "fail": "the deployment that results is FAILED after `seconds`",
    "rate_limit": "answers 429 with Retry-After: `seconds`",
    "expire": "images of removed deployments are kept for `seconds` only, whatever the operation and times",
}


@dataclass
class Fault:
    """`operation` is a field of Query or Mutation, such as deploymentRollback, or * for any."""

    operation: str
    kind: str
    times: int = 1
    seconds: float = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind: {self.kind!r} is not one of {', '.join(KINDS)}")


class Faults:
    """The faults still to come."""

    def __init__(self) -> None:
        self._pending: list[Fault] = []

    def replace(self, faults: list[dict[str, Any]]) -> None:
        self._pending = [Fault(**fault) for fault in faults]

    def take(self, operations: list[str]) -> Fault | None:
        """The next fault that meets a call of these operations, counted down."""
        for fault in self._pending:
            if fault.kind != "expire" and fault.times > 0 and fault.operation in ("*", *operations):
                fault.times -= 1
                return fault
        return None

    def retention(self, otherwise: float) -> float:
        """How long images are kept after removal, in seconds."""
        return next((fault.seconds for fault in self._pending if fault.kind == "expire"), otherwise)

    def pending(self) -> list[dict[str, Any]]:
        return [asdict(fault) for fault in self._pending if fault.times > 0]
