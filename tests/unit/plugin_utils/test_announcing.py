"""Messages of a run to the sandbox's sink: what is told, what arrives, and what becomes of a channel's failures."""
from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from ansible_collections.marketsage.rollback.plugins.action import announce
from ansible_collections.marketsage.rollback.plugins.module_utils.control import Control, process_start
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput
from ansible_collections.marketsage.rollback.plugins.module_utils.outbox import Outbox
from ansible_collections.marketsage.rollback.plugins.module_utils.steps import Steps
from ansible_collections.marketsage.rollback.plugins.plugin_utils import announcing, courier
from ansible_collections.marketsage.rollback.plugins.plugin_utils.announcing import (
    Announcement,
    ticked,
)
from ansible_collections.marketsage.rollback.sandbox.sink import Sink
from ansible_collections.marketsage.rollback.tests.helpers import eventually

REPOSITORY = Path(__file__).resolve().parents[3]
RUN = "20261124T031500Z-backend-3f9a"
REASON = "health <answers> 500 & {{ 7 * 7 }}"
PLAN = {
    "version": 1, "environment": "test", "procedure": "backend", "severity": "P0", "reason": REASON,
    "services": {"backend": {"action": "rollback"}, "frontend": {"action": "none"}},
}  # fmt: skip
ONCALL = {
    "primary": {"name": "Ann", "phone": "+15005550001", "slack": "@ann"},
    "secondary": {"name": "Bob", "phone": "+15005550002", "slack": "@bob"},
}
SECRET = "s3cret-s3cret-s3cret-s3cret-s3cre"[:32]
_LONGEST = 30.0


def policy(**announce: Any) -> dict[str, Any]:
    data = yaml.safe_load((REPOSITORY / "playbooks/group_vars/all/policy.yml").read_text())["rollback_policy"]
    data["announce"].update(tell={"P0": ["alerts", "team", "sms", "pager", "hook"]}, **announce)
    return dict(data)


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    server = Sink(0, tmp_path / "sink.jsonl")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def channels(sink: Sink, tmp_path: Path) -> dict[str, Any]:
    url = f"http://127.0.0.1:{sink.server_port}"
    token, address = tmp_path / "token", tmp_path / "address"
    for file, text in ((token, SECRET), (address, f"{url}/services/T0/B0/{SECRET}")):
        file.touch(0o600)
        file.write_text(text)
    return {
        "alerts": {"type": "slack", "api_url": f"{url}/api", "channel": "C0SANDBOX01", "token_file": str(token)},
        "team": {"type": "slack_webhook", "url_file": str(address)},
        "sms": {
            "type": "twilio", "api_url": url, "account_sid": "AC1", "token_file": str(token), "from": "+15005550006",
        },
        "pager": {"type": "pagerduty", "api_url": url, "routing_key_file": str(token)},
        "hook": {"type": "webhook", "url": f"{url}/hook", "token_file": str(token)},
    }  # fmt: skip


@pytest.fixture
def control(tmp_path: Path) -> Control:
    control = Control(str(tmp_path / "control"))
    control.acquire(RUN, PLAN, "ann", os.getpid())
    return control


@pytest.fixture
def begin(
    control: Control, channels: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Announcement]:
    """Announce the run with some of the channels, driven by this process, and leave the delivery to the test."""
    monkeypatch.setattr(os, "getppid", os.getpid)
    monkeypatch.setattr(Announcement, "follow", lambda self: None)

    def announced(*names: str, **settings: Any) -> Announcement:
        chosen = {name: channels[name] for name in names or channels}
        arguments = {
            "control_dir": control.directory, "run": RUN, "channels": chosen, "oncall": ONCALL,
            "policy": policy(**settings), "templates": str(REPOSITORY / "playbooks/templates"),
        }  # fmt: skip
        announce.begin(arguments)
        return Announcement(control.directory, RUN)

    return announced


def deliver(announcement: Announcement, states: tuple[str, ...] = courier.DUE) -> None:
    outbox = announcement.outbox
    courier.deliver(outbox, announcement.settings["channels"], outbox.waiting(RUN), states)


def states(outbox: Outbox) -> dict[str, str]:
    """What became of each channel's newest message."""
    return {one["channel"]: one["state"] for one in [*outbox.settled(RUN), *outbox.waiting(RUN)]}


def accepted(sink: Sink, path: str = "") -> list[Any]:
    return [one["body"] for one in sink.received() if one["accepted"] and path in one["path"]]


def set_mode(sink: Sink, mode: str) -> None:
    httpx.post(f"http://127.0.0.1:{sink.server_port}/_control", json={"mode": mode}, trust_env=False).raise_for_status()


def test_each_channel_gets_what_its_api_wants(begin: Any, sink: Sink) -> None:
    announcement = begin()
    deliver(announcement)
    assert set(states(announcement.outbox).values()) == {"sent"}
    by_path = {one["path"]: one for one in sink.received()}
    post = by_path["/api/chat.postMessage"]
    assert post["headers"]["Authorization"] == f"Bearer {SECRET}"
    assert post["body"]["channel"] == "C0SANDBOX01"
    sms = by_path["/2010-04-01/Accounts/AC1/Messages.json"]
    assert (sms["body"]["To"], sms["body"]["From"]) == ("+15005550001", "+15005550006")
    assert sms["body"]["Body"].startswith("P0 rollback initiated: backend in test.")
    assert sms["headers"]["Authorization"].startswith("Basic ")
    event = by_path["/v2/enqueue"]["body"]
    assert (event["event_action"], event["dedup_key"], event["payload"]["severity"]) == ("trigger", RUN, "critical")
    assert by_path["/hook"]["headers"]["Idempotency-Key"] == by_path["/hook"]["body"]["id"]


def test_the_template_is_filled_from_the_run_and_values_stay_data(begin: Any, sink: Sink) -> None:
    deliver(begin("team"))
    text = accepted(sink)[0]["text"]
    assert text.startswith("🚨 ROLLBACK INITIATED\n\nTime: ")
    assert "Severity: P0\nAffected Services: backend (test)\n" in text
    assert "Reason: health &lt;answers&gt; 500 &amp; {{ 7 * 7 }}\nETA: " in text
    assert text.count("- [ ] ") == 4
    assert "Next Steps:\n- Monitor system stability for 30 minutes" in text
    assert "Contact: Ann - +15005550001 - @ann" in text


PROPOSED = {
    **PLAN, "severity": "P1", "reason": "it's down; rm -rf", "balancers": {},
    "approval": {"need": "preferred", "roles": ["team_lead"]}, "services": {},
}  # fmt: skip


def propose(control: Control, channels: dict[str, Any]) -> dict[str, Any]:
    rules = policy()
    rules["announce"]["tell"]["P1"] = list(channels)
    return announce.propose(
        {
            "control_dir": control.directory, "plan": PROPOSED, "channels": channels, "oncall": ONCALL,
            "policy": rules, "templates": str(REPOSITORY / "playbooks/templates"),
        }
    )  # fmt: skip


def test_a_proposal_is_told_where_people_chat_with_what_to_type(
    control: Control, channels: dict[str, Any], sink: Sink
) -> None:
    assert propose(control, channels)["warnings"] == []
    assert {one["path"].rpartition("/")[2] for one in sink.received()} == {"chat.postMessage", SECRET, "hook"}
    (hook,) = accepted(sink, "/hook")
    said = [line.split(": ", 1)[1] for line in hook["text"].splitlines() if ": rollback " in line]
    approve, carry_out, _assess = said
    assert approve == f"rollback approve {hook['details']['plan'][:12]}"
    assert shlex.split(carry_out) == ["rollback", "run", "backend", "-s", "P1", "-r", "it's down; rm -rf"]


def test_a_proposal_that_a_channel_does_not_take_waits_in_the_outbox(
    control: Control, channels: dict[str, Any], sink: Sink
) -> None:
    set_mode(sink, "error")
    (warning,) = propose(control, {"team": channels["team"]})["warnings"]
    assert "not told yet: team" in warning
    assert [one["event"] for one in Outbox(control).waiting()] == ["proposed"]


def test_that_it_is_worse_again_is_a_message_of_its_own_and_a_new_page(begin: Any, sink: Sink) -> None:
    announcement = begin("alerts", "pager")
    for event, why in (("begun", ""), ("done", ""), ("regressed", "Error rate: 7 %")):
        announcement.tell(event, why=why)
        deliver(announcement)
    slack = [one for one in sink.received() if one["path"].startswith("/api/chat.")]
    assert [one["path"].rpartition(".")[2] for one in slack] == ["postMessage", "update", "postMessage"]
    assert slack[-1]["body"]["text"].startswith("📉 WORSE AGAIN")
    assert "Error rate: 7 %" in slack[-1]["body"]["text"] and "rollback assess" in slack[-1]["body"]["text"]
    assert [one["event_action"] for one in accepted(sink, "/v2/enqueue")] == ["trigger", "resolve", "trigger"]
    assert accepted(sink, "/v2/enqueue")[-1]["payload"]["summary"].startswith("P0 rollback is done, but it is WORSE")


def test_slack_has_one_message_whose_boxes_are_ticked(begin: Any, sink: Sink) -> None:
    announcement = begin("alerts")
    deliver(announcement)
    steps = Steps(["Roll back to the last good release", "Verify health", "Restore traffic"])
    steps.enter("Roll back to the last good release")
    announcement.progress(steps.status)
    announcement.progress(steps.status)
    deliver(announcement)
    for name in ("Verify health", "Restore traffic"):
        steps.result(ok=True)
        steps.enter(name)
    steps.result(ok=True)
    steps.leave()
    announcement.keep_ticked(steps.status)
    announcement.tell("done")
    deliver(announcement)
    calls = [(one["path"], one["body"].get("ts")) for one in sink.received()]
    assert [path for path, _ts in calls] == ["/api/chat.postMessage", "/api/chat.update", "/api/chat.update"]
    assert calls[1][1] == calls[2][1] is not None
    last = accepted(sink)[-1]["text"]
    assert last.startswith("✅ ROLLBACK DONE")
    assert "- [x] Traffic routed to previous version\n- [ ] Database backup completed (not needed)\n" in last
    assert "- [x] Service rollback initiated\n- [x] Health checks passing" in last


def test_pagerduty_is_resolved_when_the_run_is_done(begin: Any, sink: Sink) -> None:
    announcement = begin("pager")
    deliver(announcement)
    announcement.tell("done")
    deliver(announcement)
    assert [(one["event_action"], one["dedup_key"]) for one in accepted(sink)] == [("trigger", RUN), ("resolve", RUN)]


def test_a_later_message_takes_the_place_of_one_that_never_left(begin: Any, sink: Sink) -> None:
    announcement = begin("sms")
    announcement.tell("done")
    deliver(announcement)
    assert [one["Body"][:16] for one in accepted(sink)] == ["P0 rollback DONE"]
    assert [one["state"] for one in announcement.outbox.settled(RUN)] == ["superseded", "sent"]


@pytest.mark.parametrize("mode", ["error", "busy"])
def test_what_was_not_taken_waits_and_arrives_once(begin: Any, sink: Sink, mode: str) -> None:
    announcement = begin()
    set_mode(sink, mode)
    deliver(announcement)
    assert set(states(announcement.outbox).values()) == {"queued"}
    assert len(announcement.undelivered()) == 5
    set_mode(sink, "answer")
    deliver(announcement)
    deliver(announcement)
    assert len(accepted(sink)) == 5
    assert announcement.undelivered() == []


def test_a_sink_that_is_down_is_no_doubt(begin: Any, sink: Sink) -> None:
    announcement = begin()
    sink.shutdown()
    sink.server_close()
    deliver(announcement)
    assert set(states(announcement.outbox).values()) == {"queued"}


def test_what_may_have_arrived_is_sent_again_only_where_the_api_makes_one_of_two(begin: Any, sink: Sink) -> None:
    announcement = begin()
    set_mode(sink, "drop")
    deliver(announcement)
    assert states(announcement.outbox) == {
        "alerts": "unknown", "team": "unknown", "sms": "unknown", "hook": "unknown", "pager": "queued",
    }  # fmt: skip
    set_mode(sink, "answer")
    for _time in range(2):
        deliver(announcement, courier.MENDED)
    assert [len(accepted(sink, path)) for path in ("Messages.json", "/hook", "/services", "postMessage")] == [1] * 4
    assert states(announcement.outbox)["pager"] == "sent"
    assert all("did it arrive?" in one["error"] for one in announcement.outbox.waiting(RUN))

    sms = next(one for one in announcement.outbox.waiting(RUN) if one["channel"] == "sms")
    courier.deliver(announcement.outbox, announcement.settings["channels"], [sms], courier.NAMED)
    assert len(accepted(sink, "Messages.json")) == 2


def test_an_update_whose_answer_was_lost_is_made_again(begin: Any, sink: Sink) -> None:
    announcement = begin("alerts")
    deliver(announcement)
    announcement.tell("done")
    set_mode(sink, "drop")
    deliver(announcement)
    assert states(announcement.outbox)["alerts"] == "queued"
    set_mode(sink, "answer")
    deliver(announcement)
    assert states(announcement.outbox)["alerts"] == "sent"
    assert len(accepted(sink, "postMessage")) == 1


def test_a_message_that_is_gone_from_slack_is_posted_anew(begin: Any, sink: Sink) -> None:
    announcement = begin("alerts")
    deliver(announcement)
    sink.posted.clear()
    announcement.tell("done")
    deliver(announcement)
    assert len(accepted(sink, "postMessage")) == 2


def test_a_channel_that_refuses_is_tried_again_only_on_request(begin: Any, sink: Sink) -> None:
    announcement = begin()
    set_mode(sink, "fail")
    deliver(announcement)
    assert set(states(announcement.outbox).values()) == {"refused"}
    set_mode(sink, "answer")
    deliver(announcement)
    assert accepted(sink) == []
    deliver(announcement, courier.MENDED)
    assert len(accepted(sink)) == 5


def test_no_secret_is_in_a_message_or_its_errors(begin: Any, sink: Sink, control: Control) -> None:
    announcement = begin()
    for mode in ("fail", "drop", "error"):
        set_mode(sink, mode)
        deliver(announcement, courier.NAMED)
    sink.shutdown()
    sink.server_close()
    deliver(announcement, courier.NAMED)
    kept = [path.read_text() for path in Path(control.directory).rglob("*") if path.is_file()]
    assert kept
    assert not any(SECRET in text for text in kept)


def test_a_missing_secret_refuses_its_channel_alone(begin: Any, channels: dict[str, Any]) -> None:
    channels["sms"]["token_file"] = "/nowhere/token"
    announcement = begin()
    deliver(announcement)
    assert states(announcement.outbox)["sms"] == "refused"
    assert states(announcement.outbox)["pager"] == "sent"
    assert "sms: token_file: /nowhere/token cannot be read" in announcement.undelivered()[0]


def test_a_sender_that_was_killed_leaves_a_question_not_a_second_sms(begin: Any, sink: Sink) -> None:
    announcement = begin("sms", "pager")
    for message in announcement.outbox.waiting(RUN):
        claimed = announcement.outbox.claim(message["id"], courier.DUE, repeatable=False)
        assert claimed
        claimed["sender"] = {"pid": os.getpid(), "started": "another process"}
        announcement.outbox._write(claimed)
    deliver(announcement)
    assert states(announcement.outbox) == {"sms": "unknown", "pager": "sent"}
    assert accepted(sink, "Messages.json") == []


def test_two_senders_send_once(begin: Any, sink: Sink) -> None:
    announcement = begin()
    senders = [threading.Thread(target=deliver, args=(announcement,)) for _number in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert len(accepted(sink)) == 5


def test_a_dropped_message_is_kept_with_its_run(begin: Any) -> None:
    announcement = begin("sms")
    identifier = announcement.outbox.waiting(RUN)[0]["id"]
    announcement.outbox.drop(identifier)
    assert [one["state"] for one in announcement.outbox.settled(RUN)] == ["dropped"]
    with pytest.raises(BadInput, match="is waiting; see: rollback outbox list"):
        announcement.outbox.drop(identifier)


@pytest.mark.parametrize("channels", [["alerts"], "alerts", {"alerts": "C0INCIDENTS"}])
def test_channels_of_a_wrong_form_are_said(channels: Any) -> None:
    with pytest.raises(BadInput, match="rollback_channels"):
        announce.channels_for("P0", {"announce": {"tell": {"P0": ["alerts"]}}}, channels)


def test_a_channel_without_a_type_hears_of_what_all_channels_hear() -> None:
    assert announcing.hearing("begun", {"alerts": {}}) == ["alerts"]
    assert announcing.hearing("progress", {"alerts": {}}) == []


def test_an_environment_without_the_channels_is_said(begin: Any, control: Control) -> None:
    arguments = {"control_dir": control.directory, "run": RUN, "channels": {}, "policy": policy()}
    with pytest.raises(BadInput, match="channels: this environment has none of those that the policy names for P0"):
        announce.begin(arguments)


# The process of its own, as a run leaves it behind.


def courier_process(control: Control) -> subprocess.Popen[bytes]:
    module = "ansible_collections.marketsage.rollback.plugins.plugin_utils.courier"
    environment = {**os.environ, "PYTHONPATH": str(announcing._IMPORT_ROOT)}
    return subprocess.Popen([sys.executable, "-m", module, control.directory, RUN], env=environment)


def drive(control: Control) -> subprocess.Popen[bytes]:
    """A process that stands for the controller of the run."""
    driver = subprocess.Popen(["sleep", "60"])
    file = Path(control.path("runs", RUN, "announcement.json"))
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "driver": {"pid": driver.pid, "started": process_start(driver.pid)}}))
    return driver


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_the_courier_delivers_while_the_run_goes_on_and_ends_after_it(
    begin: Any, sink: Sink, control: Control
) -> None:
    announcement = begin()
    process = courier_process(control)
    eventually(lambda: len(accepted(sink)) == 5)
    assert announcement.is_followed()
    assert process.poll() is None
    announcement.tell("done")
    assert announcement.undelivered() == [] or eventually(lambda: announcement.undelivered() == [])
    assert process.wait(_LONGEST) == 0
    assert not announcement.is_followed()


def test_a_message_that_is_settled_but_not_moved_yet_waits_no_more(
    begin: Any, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    announcement = begin("sms")
    message = announcement.outbox.waiting()[0]
    monkeypatch.setattr(announcement.outbox, "_settled", lambda _message: "/nowhere/it")
    announcement.outbox.settle(message, "sent", {})
    assert announcement.undelivered() == []


def test_a_channel_that_hangs_holds_no_other_up(begin: Any, sink: Sink, control: Control) -> None:
    announcement = begin()
    httpx.post(
        f"http://127.0.0.1:{sink.server_port}/_control", json={"mode": "hang", "apis": ["slack"]}, trust_env=False
    )

    def begun() -> str:
        told = announcement.told()
        return str(next(one["state"] for one in told if (one["channel"], one["event"]) == ("alerts", "begun")))

    process = courier_process(control)
    try:
        eventually(lambda: begun() == "sending" and len(accepted(sink, "Messages.json")) == 1)
        announcement.tell("done")
        eventually(lambda: len(accepted(sink, "Messages.json")) == 2)
        assert begun() == "sending"
    finally:
        end(process)


def test_a_courier_whose_run_is_opened_again_ends_what_is_on_its_way_first(
    begin: Any, sink: Sink, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    announcement, send, is_sending = begin("sms"), courier.channels.send, threading.Event()

    def send_slowly(*arguments: Any) -> Any:
        is_sending.set()
        time.sleep(1.5)
        return send(*arguments)

    monkeypatch.setattr(courier.channels, "send", send_slowly)
    work = threading.Thread(target=courier.Courier(control.directory, RUN).work)
    work.start()
    assert is_sending.wait(_LONGEST)
    announcement.keep({**announcement.settings, "fence": announcement.settings["fence"] + 1})
    work.join(_LONGEST)
    assert not work.is_alive()
    assert states(announcement.outbox) == {"sms": "sent"}
    assert len(accepted(sink)) == 1


def test_a_run_whose_process_is_gone_is_told_and_escalated_until_somebody_has_it_in_hand(
    begin: Any, sink: Sink, control: Control
) -> None:
    announcement = begin("sms", acknowledge_within=1)
    driver = drive(control)
    process = courier_process(control)
    eventually(lambda: len(accepted(sink)) == 1)
    end(driver)
    bodies = eventually(lambda: len(found := accepted(sink)) == 3 and found)
    assert [one["To"] for one in bodies] == ["+15005550001", "+15005550001", "+15005550002"]
    assert ["INTERRUPTED" in bodies[1]["Body"], "NOT ACKNOWLEDGED" in bodies[2]["Body"]] == [True, True]
    assert process.wait(_LONGEST) == 0
    assert announcement.undelivered() == []


def test_an_acknowledged_run_is_not_escalated(begin: Any, sink: Sink, control: Control) -> None:
    announcement = begin("sms", "pager", acknowledge_within=3600)
    announcement.tell("held", why="health answers 500")
    process = courier_process(control)
    eventually(lambda: len(accepted(sink, "Messages.json")) == len(accepted(sink, "enqueue")) == 1)
    assert process.poll() is None
    arguments = {"control_dir": control.directory, "run": RUN}
    assert announce.acknowledge(arguments) == {"changed": True}
    assert announce.acknowledge(arguments) == {"changed": False}
    assert process.wait(_LONGEST) == 0
    assert len(accepted(sink, "Messages.json")) == 1
    assert [one["event_action"] for one in accepted(sink, "enqueue")] == ["trigger", "acknowledge"]


def test_the_courier_goes_when_the_record_is_gone(begin: Any, sink: Sink, control: Control) -> None:
    begin("sms")
    process = courier_process(control)
    eventually(lambda: len(accepted(sink)) == 1)
    shutil.rmtree(Path(control.directory).rename(f"{control.directory}.old"))
    assert process.wait(_LONGEST) == 0
    assert not Path(control.directory).exists()


# What is told, from what was done.


BOXES = policy()["announce"]["boxes"]


def tick(names: list[str], done: int, *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """The boxes after `done` of these steps, where some had nothing to do."""
    steps = Steps(names)
    for name in names[: done + 1]:
        steps.enter(name)
        if name not in without and name in names[:done]:
            steps.result(ok=True)
    return {box["name"].split()[0]: box["state"] for box in ticked(BOXES, steps.status)}


FULL = ["Roll back the schema", "Roll back to the last good release", "Verify health", "Restore traffic", "Close"]


@pytest.mark.parametrize(
    ("done", "states"),
    [
        (0, ["open", "open", "done", "open"]),
        (1, ["open", "done", "done", "open"]),
        (2, ["open", "done", "done", "open"]),
        (3, ["open", "done", "done", "done"]),
        (4, ["done", "done", "done", "done"]),
    ],
)
def test_boxes_are_ticked_as_steps_complete(done: int, states: list[str]) -> None:
    assert list(tick(FULL, done).values()) == states


def test_a_box_whose_steps_had_nothing_to_do_is_not_needed_and_never_ticked() -> None:
    assert tick(FULL, 4, without=("Roll back the schema",))["Database"] == "not needed"
    assert tick(["Roll back to the last good release", "Verify health"], 1) == {
        "Traffic": "done", "Database": "not needed", "Service": "done", "Health": "open",
    }  # fmt: skip


def test_a_failed_step_ticks_nothing() -> None:
    steps = Steps(["Verify health"])
    steps.enter("Verify health")
    steps.result(ok=False)
    steps.leave()
    assert ticked([{"name": "Health", "done": ["Verify health"]}], steps.status)[0]["state"] == "open"


def test_every_step_that_ticks_a_box_is_a_step_of_some_playbook() -> None:
    plays = {play["name"] for path in REPOSITORY.glob("playbooks/*.yml") for play in yaml.safe_load(path.read_text())}
    assert {step for box in BOXES for key in ("begun", "done") for step in box.get(key, [])} <= plays


def test_the_eta_is_what_earlier_runs_took(begin: Any, control: Control) -> None:
    directory = Path(control.path("runs", "20261123T100000Z-backend-0001"))
    directory.mkdir()
    (directory / "outcome.json").write_text(json.dumps({"state": "done"}))
    (directory / "steps.json").write_text(json.dumps({"Read what is live": 4000.0, "Verify health": 3000.0}))
    before = datetime.now(UTC)
    eta = datetime.fromisoformat(begin("sms").settings["eta"])
    assert 6900 < (eta - before).total_seconds() < 7900
