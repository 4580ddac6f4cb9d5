"""People are told of a real run, and a sink that fails in the middle of it costs the run nothing."""
from __future__ import annotations

import json
import threading
import time
from typing import Any

import httpx
from conftest import Sandbox

SAID = ("-e", "severity=P0", "-e", 'reason="health answers 500"')
_LONGEST = 120.0


def received(sandbox: Sandbox) -> list[dict[str, Any]]:
    return [one for one in httpx.get(sandbox.layout.url("sink"), trust_env=False).json() if one["accepted"]]


def control_sink(sandbox: Sandbox, mode: str) -> None:
    httpx.post(f"{sandbox.layout.url('sink')}/_control", json={"mode": mode}, trust_env=False).raise_for_status()


def pages(sandbox: Sandbox) -> list[str]:
    """What PagerDuty was told to do."""
    return [one["body"]["event_action"] for one in received(sandbox) if one["path"] == "/v2/enqueue"]


def forget(sandbox: Sandbox) -> None:
    control_sink(sandbox, "answer")
    httpx.delete(sandbox.layout.url("sink"), trust_env=False).raise_for_status()


def counted(sandbox: Sandbox) -> dict[str, int]:
    """How many messages of each kind the sink has taken."""
    paths = [one["path"].rpartition("/")[2] for one in received(sandbox)]
    return {path: paths.count(path) for path in paths}


def break_the_sink_once_it_was_told(sandbox: Sandbox, until: float) -> None:
    while time.monotonic() < until:
        if len(counted(sandbox)) >= 4:
            control_sink(sandbox, "error")
            return
        time.sleep(0.05)


def test_everybody_is_told_while_the_run_goes_on(sandbox: Sandbox) -> None:
    forget(sandbox)
    sandbox.break_("backend-500")
    check = sandbox.playbook("backend", *SAID, "--check")
    assert check.returncode == 0, check.stdout
    assert received(sandbox) == []

    done = sandbox.playbook("backend", *SAID)
    assert done.returncode == 0, done.stdout + done.stderr
    slack = [one["body"]["text"] for one in received(sandbox) if one["path"].startswith("/api/chat.")]
    assert slack[0].startswith("🚨 ROLLBACK ")
    assert slack[-1].startswith("✅ ROLLBACK DONE")
    boxes = [line[:5] for line in slack[-1].splitlines() if line.startswith("- [")]
    assert boxes == ["- [x]", "- [ ]", "- [x]", "- [x]"]
    assert counted(sandbox)["chat.postMessage"] == 1
    assert pages(sandbox) == ["trigger", "resolve"]

    again = sandbox.playbook("backend", *SAID)
    assert again.returncode == 0, again.stdout
    assert len(received(sandbox)) == len(slack) + 2 + counted(sandbox)["Messages.json"] + counted(sandbox)["hook"]


def test_a_sink_that_fails_in_the_middle_costs_the_run_nothing_and_is_told_once_later(sandbox: Sandbox) -> None:
    forget(sandbox)
    sandbox.break_("full-system")
    watch = threading.Thread(target=break_the_sink_once_it_was_told, args=(sandbox, time.monotonic() + _LONGEST))
    watch.start()
    done = sandbox.playbook("full_system", *SAID)
    watch.join()
    assert done.returncode == 10, done.stdout + done.stderr
    assert "DONE: " in done.stdout
    assert "QUEUED: not told yet: " in done.stdout
    assert (sandbox.answer().status_code, sandbox.is_locked()) == (200, False)
    before = counted(sandbox)

    listed = json.loads(sandbox.rollback("outbox", "list", "--json").stdout)
    assert {(one["channel"], one["event"]) for one in listed["waiting"]} == {
        (channel, "done") for channel in ("alerts", "sms", "pager", "hook")
    }
    control_sink(sandbox, "answer")
    for _time in range(2):
        sent = sandbox.rollback("outbox", "send", "--json")
        assert sent.returncode == 0, sent.stderr
        assert json.loads(sent.stdout)["waiting"] == []
    after = counted(sandbox)
    assert {path: after[path] - before.get(path, 0) for path in after} == {
        "chat.postMessage": 0, "chat.update": 1, "Messages.json": 1, "enqueue": 1, "hook": 1,
    }  # fmt: skip


def test_a_held_run_is_told_and_acknowledged(sandbox: Sandbox) -> None:
    forget(sandbox)
    sandbox.break_("backend-500")
    sandbox.break_("backend-errors")
    held = sandbox.playbook("backend", *SAID, "-e", "to=v1.2.0-bad-health")
    assert held.returncode == 20, held.stdout + held.stderr
    slack = [one["body"]["text"] for one in received(sandbox) if one["path"].startswith("/api/chat.")]
    assert slack[-1].startswith("⛔ ROLLBACK HELD")
    assert "answered 500" in slack[-1]
    run = next(one["body"]["run"] for one in received(sandbox) if one["path"] == "/hook")
    acknowledged = sandbox.rollback("ack", run)
    assert acknowledged.returncode == 0, acknowledged.stderr
    assert "you look after it" in acknowledged.stdout
    assert pages(sandbox)[-1] == "acknowledge"

    assert sandbox.rollback("ack", "nonsense").returncode == 2
    assert sandbox.rollback("outbox", "drop", "nonsense").returncode == 2
