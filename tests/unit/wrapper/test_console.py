from __future__ import annotations

import io
from typing import Any

import pytest
from ansible_collections.marketsage.rollback.wrapper import policy
from ansible_collections.marketsage.rollback.wrapper.console import LiveTable
from ansible_collections.marketsage.rollback.wrapper.scene import Scene
from rich.console import Console

RUN = "20261124T031500Z-full_system-3f9a"


def screen(procedure: str) -> tuple[LiveTable, Console]:
    """The screen of a terminal of 80 by 24 while a procedure's longest step is carried out."""
    steps = policy.steps(policy.playbook(procedure), only_plan=False)
    console = Console(file=io.StringIO(), width=80, height=24)
    view = LiveTable(Scene(), policy.on_failure(), console)
    title = policy.procedures()[procedure]["title"]
    happenings: list[dict[str, Any]] = [
        {"event": "started", "time": 0, "title": title, "response_time": 300, "steps": steps},
        {"event": "plan", "summary": [f"line {number} of the plan" for number in range(20)]},
        {"event": "opened", "run": RUN},
        {"event": "step_started", "step": list(steps)[-2], "elapsed": 3.0},
        {"event": "task_started", "task": "Read releases, deployments, migrations and the maintenance page"},
        *[{"event": "task", "host": "api-1", "task": "Keep the journal with the run", "status": "ok"}] * 3,
    ]
    for happening in happenings:
        view.scene.take(happening)
        view.tell(happening)
    return view, console


@pytest.mark.parametrize("procedure", policy.procedures())
def test_what_is_happening_has_room_in_a_terminal_of_24_lines(procedure: str) -> None:
    view, console = screen(procedure)
    assert len(console.render_lines(view.render())) <= console.height


def test_the_screen_ends_with_how_the_run_ended() -> None:
    view, console = screen("full_system")
    lines = [f"DONE: {RUN}: the gate passed and traffic is on", "NOTE: nobody approved it"]
    view.scene.take({"event": "ended", "run": RUN, "exit_code": 0, "status": "new", "lines": lines})
    shown = ["".join(part.text for part in line).rstrip() for line in console.render_lines(view.render())]
    assert shown[-2:] == lines
