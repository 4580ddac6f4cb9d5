"""How far a run has come and how long that took, and what of it is kept for later plans."""
from __future__ import annotations

from pathlib import Path

from ansible_collections.marketsage.rollback.plugins.module_utils import steps


def test_seconds_are_counted_where_anything_was_done_and_kept_with_the_run(tmp_path: Path) -> None:
    now = [100.0]
    seen = steps.Steps(["Read", "Act", "Verify", "Close"], lambda: now[0])
    for name, results, seconds in (
        ("Read", [True], 2), ("Act", [], 3), ("Verify", [True], 1.5), ("Close", [True], 1), ("Verify", [True], 2),
    ):  # fmt: skip
        seen.enter(name)
        for ok in results:
            seen.result(ok)
        now[0] += seconds
    seen.leave()
    assert seen.status == {"Read": "done", "Act": "skipped", "Verify": "done", "Close": "done"}
    seen.keep(str(tmp_path))
    assert steps.kept(str(tmp_path)) == {"Read": 2.0, "Verify": 3.5, "Close": 1.0}


def test_a_play_of_the_same_name_goes_on_with_the_step() -> None:
    now = [0.0]
    seen = steps.Steps(["Read"], lambda: now[0])
    for _play in range(2):
        seen.enter("Read")
        seen.result(True)
        now[0] += 1
    seen.leave()
    assert (seen.status, seen.seconds) == ({"Read": "done"}, {"Read": 2.0})


def test_a_step_that_failed_stays_so() -> None:
    seen = steps.Steps(["Act"])
    seen.enter("Act")
    for ok in (True, False, True):
        seen.result(ok)
    seen.leave()
    assert seen.status == {"Act": "failed"}
