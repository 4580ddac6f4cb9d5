"""How far a run has come and how long that took, and what of it is kept for later plans."""
from __future__ import annotations

import json
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


def kept_run(runs: Path, run: str, state: str, seconds: dict[str, float]) -> None:
    directory = runs / run
    directory.mkdir(parents=True)
    (directory / "steps.json").write_text(json.dumps(seconds))
    (directory / "outcome.json").write_text(json.dumps({"state": state}))


def test_what_is_expected_is_the_median_of_runs_of_the_procedure_that_ended_well(tmp_path: Path) -> None:
    kept_run(tmp_path, "20261101T000000Z-backend-0001", "done", {"Read": 1, "Act": 10})
    kept_run(tmp_path, "20261102T000000Z-backend-0002", "done", {"Read": 3, "Act": 30})
    kept_run(tmp_path, "20261103T000000Z-backend-0003", "aborted", {"Read": 90})
    kept_run(tmp_path, "20261104T000000Z-frontend-0004", "done", {"Read": 90})
    estimated = steps.estimates(str(tmp_path), "backend")
    assert estimated == {"Read": 2, "Act": 20}
    assert steps.forecast(estimated, 300, True) == ["time: about 22 s of 300 s by earlier runs; longest: Act, 20 s"]


def test_what_will_not_fit_is_said_and_what_is_not_known_too() -> None:
    assert steps.forecast({"Build": 200, "Act": 150}, 300, True)[1] == (
        "time: IT WILL NOT FIT into 300 s; a release that is built on every host is faster (rollback status)"
    )
    assert steps.forecast({"Act": 301}, 300, False)[1] == "time: IT WILL NOT FIT into 300 s"
    assert steps.forecast({}, 300, False) == ["time: unknown, no earlier run of this procedure tells"]
