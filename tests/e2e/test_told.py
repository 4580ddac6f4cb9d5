"""People are told of a real run, and a sink that fails in the middle of it costs the run nothing."""
from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
import pytest
from ansible_collections.marketsage.rollback.sandbox.load import Load
from ansible_collections.marketsage.rollback.tests.helpers import eventually
from conftest import GIVING_UP, Sandbox

SAID = ("-e", "severity=P0", "-e", 'reason="health answers 500"')
# Longer than the window of the sandbox's rates.
BASELINE_SECONDS = 20


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


def break_the_sink_once_it_was_told(sandbox: Sandbox) -> None:
    eventually(lambda: len(counted(sandbox)) >= 4)
    control_sink(sandbox, "error")


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
    watch = threading.Thread(target=break_the_sink_once_it_was_told, args=(sandbox,))
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


def test_channels_of_a_wrong_form_tell_nobody_and_hold_nothing(sandbox: Sandbox) -> None:
    sandbox.break_("backend-500")
    wrong = json.dumps({"rollback_channels": ["alerts"]})
    done = sandbox.playbook("backend", "-e", "severity=P0", "-e", 'reason="health 500"', "-e", wrong)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nobody is told: rollback_channels" in done.stdout + done.stderr


def test_a_held_run_is_told_and_acknowledged(sandbox: Sandbox) -> None:
    forget(sandbox)
    sandbox.break_("backend-500")
    sandbox.break_("backend-errors")
    held = sandbox.playbook("backend", *SAID, "-e", "to=v1.2.0-bad-health", *GIVING_UP)
    assert held.returncode == 20, held.stdout + held.stderr
    slack = [one["body"]["text"] for one in received(sandbox) if one["path"].startswith("/api/chat.")]
    assert slack[-1].startswith("⛔ ROLLBACK HELD")
    assert "answered 500" in slack[-1]
    acknowledged = sandbox.rollback("ack")
    assert acknowledged.returncode == 0, acknowledged.stderr
    assert "you look after it" in acknowledged.stdout
    assert pages(sandbox)[-1] == "acknowledge"

    assert sandbox.rollback("ack", "nonsense").returncode == 2
    assert sandbox.rollback("outbox", "drop", "nonsense").returncode == 2


# A fault that was not there when the gate looked: with every second more of the writes fail.
WEARS_OUT = """
CREATE FUNCTION wear_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF random() < extract(epoch FROM now() - '{since}'::timestamptz) / 60 THEN RAISE EXCEPTION 'worn out'; END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER wears_out BEFORE INSERT ON "Contact" FOR EACH ROW EXECUTE FUNCTION wear_out();
"""


def wear_out(sandbox: Sandbox) -> None:
    with psycopg.connect(sandbox.layout.admin_database_url) as database:
        database.execute(WEARS_OUT.format(since=datetime.now(UTC).isoformat()))


def test_a_slow_regression_that_the_gate_could_not_see_is_caught_and_told(sandbox: Sandbox) -> None:
    if not sandbox.layout.prometheus.exists():
        pytest.skip("there is no Prometheus")
    forget(sandbox)
    with Load(sandbox.layout, rate=30):
        time.sleep(BASELINE_SECONDS)
        sandbox.break_("backend-500")
        done = sandbox.playbook("backend", *SAID)
        assert done.returncode == 0, done.stdout + done.stderr
        run = next(one["body"]["run"] for one in received(sandbox) if one["path"] == "/hook")
        wear_out(sandbox)
        watched = sandbox.rollback("watch", run, "--for", "2m", "--json")
    assert watched.returncode == 5, watched.stdout + watched.stderr
    events = [json.loads(line) for line in watched.stdout.splitlines()]
    looks = [event for event in events if event["event"] == "watched"]
    assert all(measure["baseline"] is not None for measure in looks[-1]["measures"]), looks[-1]
    (judged,) = (event for event in events if event["event"] == "judged")
    errors = next(measure for measure in judged["watch"]["measures"] if measure["shows"] == "errors")
    assert (errors["verdict"], judged["verdict"]) == ("worse", "worse")
    answers = {one["name"]: one["answer"] for one in judged["criteria"]}
    assert (answers["Error rates below baseline"], answers["No data loss detected"]) == ("no", "yes")

    assert pages(sandbox) == ["trigger", "resolve", "trigger"]
    slack = [one for one in received(sandbox) if one["path"] == "/api/chat.postMessage"]
    assert len(slack) == 2, "what is changed wakes nobody"
    assert slack[1]["body"]["text"].startswith("📉 WORSE AGAIN") and "Error rate" in slack[1]["body"]["text"]
    history = json.loads(sandbox.rollback("history", "--json").stdout)
    (restored,) = (one["restored_after"] for one in history["runs"])
    assert 0 < restored == history["months"][0]["median"]
    directory = sandbox.layout.directory / "report"
    report = sandbox.rollback("report", run, "--output", str(directory))
    assert report.returncode == 0, report.stdout + report.stderr
    page = (directory / "report.html").read_text()
    assert "it is worse again" in page and "<svg" in page and "data:image/png" in page
    assert "| no | Error rates below baseline |" in (directory / "report.md").read_text()
    kept = json.loads((sandbox.layout.control / "runs" / run / "watch.json").read_text())
    assert (kept["verdict"], len(kept["series"]["Error rate"]) > len(looks)) == ("worse", True)


def test_a_watch_needs_a_run_that_has_ended_and_a_time(sandbox: Sandbox) -> None:
    for words, said in (
        (("20260101T000000Z-backend-0000",), "there is no run 20260101T000000Z-backend-0000"),
        (("20260101T000000Z-backend-0000", "--for", "soon"), "for: 'soon' is not a time"),
        (("nonsense",), "run_id: 'nonsense'"),
    ):
        refused = sandbox.rollback("watch", *words)
        assert (refused.returncode, said in refused.stdout + refused.stderr) == (2, True), refused.stdout
