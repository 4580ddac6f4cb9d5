# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What can go wrong, as the end states of a run see it."""
from __future__ import annotations

from typing import Any, Callable


class RollbackError(Exception):
    """Ends a step. `exit_code` is what the run exits with; `advice` says what the operator should do next."""

    exit_code = 1

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice

    def result(self) -> dict[str, Any]:
        """What a failing module returns; the outcome callback reads `exit_code` and `advice`."""
        return {"msg": str(self), "exit_code": self.exit_code, "advice": self.advice}


class BadInput(RollbackError):
    """A parameter cannot be used; the message names it and says what would be right. Nothing was changed."""

    exit_code = 2


class Refused(RollbackError):
    """Policy, lock or preflight forbids it. Nothing was changed."""

    exit_code = 3


class Unhealthy(RollbackError):
    """A required check failed. Inside a run that holds it; by itself nothing was changed."""

    exit_code = 5


class Held(RollbackError):
    """A step failed after the run began: traffic stays as safe as it is until somebody resumes or aborts."""

    exit_code = 20


class Unknown(RollbackError):
    """The truth could not be read; the message asks a human the exact question."""

    exit_code = 30


def outcome_of(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` returns, or the failure that its RollbackError or OSError means; `failed` tells which."""
    try:
        return {"failed": False, **work()}
    except RollbackError as error:
        return {"failed": True, **error.result()}
    except OSError as error:
        named = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return {"failed": True, **RollbackError(f"{named}; nothing further was done").result()}


def finish(module: Any, work: Callable[[Any], dict[str, Any]]) -> None:
    """Exit an AnsibleModule with what `work(module)` returns, or fail it with what went wrong."""
    result = outcome_of(lambda: work(module))
    if result.pop("failed"):
        module.fail_json(**result)
    module.exit_json(**result)
