# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The APIs by which people are told, and what each of their answers means: delivered, not yet, never, or unknown.

Settings of a channel: type, and what the function of that type reads. A message: id, run, event, created and content
(summary, text, severity, to, details). A receipt is what the API gave back, which an update of the message needs.
"""
from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Callable

from ansible_collections.marketsage.rollback.plugins.module_utils import api, validate
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, RollbackError
from ansible_collections.marketsage.rollback.plugins.module_utils.files import read_secret

ATTEMPT_SECONDS = 10.0
_SMS_LENGTH = 1600
_PAGER_SEVERITIES = {"P0": "critical", "P1": "error", "P2": "warning", "P3": "info"}
_PAGER_ACTIONS = {"done": "resolve", "aborted": "resolve", "acknowledged": "acknowledge"}
# What is news by itself: a message that is changed wakes nobody.
NEWS = ("regressed", "proposed")
# What Slack calls being busy, being broken halfway through, and a message that can no longer be edited.
_SLACK_BUSY = ("ratelimited", "rate_limited", "service_unavailable")
_SLACK_UNSURE = ("internal_error", "fatal_error", "request_timeout")
_SLACK_GONE = ("message_not_found", "cant_update_message", "edit_window_closed")

Settings = Mapping[str, Any]
Message = Mapping[str, Any]
Receipt = dict


class NotYet(RollbackError):
    """It was not delivered, for certain; again in `wait` seconds at the earliest."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class Rejected(RollbackError):
    """The channel will not take it until somebody mends the settings."""


class Ambiguous(RollbackError):
    """It may have been delivered, and sending it again might tell it twice."""


def send(name: str, settings: Settings, message: Message, earlier: Receipt | None) -> Receipt:
    """Send a message once and return its receipt; NotYet, Rejected or Ambiguous where it has none.

    `earlier` is the receipt of the run's message before it on this channel.
    """
    if not settings:
        raise Rejected(f"{name}: the inventory has no such channel")
    if settings.get("type") not in _TYPES:
        raise Rejected(f"{name}: type {settings.get('type')!r} is not one of {', '.join(_TYPES)}")
    try:
        return _TYPES[settings["type"]](name, settings, message, earlier)
    except KeyError as missing:
        raise Rejected(f"{name}: its settings have no {missing}") from None
    except BadInput as error:
        raise Rejected(f"{name}: {error}") from None


def may_repeat(settings: Settings, earlier: Receipt | None) -> bool:
    """Whether the API itself makes one of two equal messages."""
    return settings.get("type") == "pagerduty" or (settings.get("type") == "slack" and earlier is not None)


def _slack(name: str, settings: Settings, message: Message, earlier: Receipt | None) -> Receipt:
    """One message for each run, changed as the run goes on."""
    body = {"channel": settings["channel"], "text": _escaped(message["content"]["text"])}
    if earlier:
        try:
            return _slack_call(name, settings, "chat.update", {**body, **earlier}, repeatable=True)
        except _Gone:
            pass
    return _slack_call(name, settings, "chat.postMessage", body, repeatable=False)


class _Gone(RollbackError):
    """The message that was to be updated is not there any more."""


def _slack_call(name: str, settings: Settings, method: str, body: Any, *, repeatable: bool) -> Receipt:
    headers = {
        "Authorization": f"Bearer {read_secret(settings['token_file'], 'token_file')}",
        "Content-Type": "application/json; charset=utf-8",
    }
    answer = _post(name, f"{settings['api_url']}/{method}", repeatable, headers=headers, json=body)
    said = _json(name, answer, repeatable)
    if said.get("ok"):
        return {"channel": said["channel"], "ts": said["ts"]}
    error = str(said.get("error"))
    if error in _SLACK_GONE and method == "chat.update":
        raise _Gone(error)
    if error in _SLACK_BUSY or (error in _SLACK_UNSURE and repeatable):
        raise NotYet(f"{name}: {error}", answer.retry_after())
    raise (Ambiguous if error in _SLACK_UNSURE else Rejected)(f"{name}: {error}")


def _slack_webhook(name: str, settings: Settings, message: Message, _earlier: Receipt | None) -> Receipt:
    _post(name, _secret_url(settings), False, json={"text": _escaped(message["content"]["text"])})
    return {}


def _twilio(name: str, settings: Settings, message: Message, _earlier: Receipt | None) -> Receipt:
    account = settings["account_sid"]
    token = read_secret(settings["token_file"], "token_file")
    credentials = base64.b64encode(f"{account}:{token}".encode()).decode()
    form = {
        "To": message["content"]["to"]["phone"],
        "From": settings["from"],
        "Body": message["content"]["summary"][:_SMS_LENGTH],
    }
    url = f"{settings['api_url']}/2010-04-01/Accounts/{account}/Messages.json"
    headers = {"Authorization": f"Basic {credentials}"}
    answer = _post(name, url, False, expect=(201,), headers=headers, form=form)
    return {"sid": str(_json(name, answer, False).get("sid"))}


def _pagerduty(name: str, settings: Settings, message: Message, _earlier: Receipt | None) -> Receipt:
    content = message["content"]
    event = {
        "routing_key": read_secret(settings["routing_key_file"], "routing_key_file"),
        "event_action": _PAGER_ACTIONS.get(message["event"], "trigger"),
        "dedup_key": message["run"],
        "payload": {
            "summary": content["summary"][:1024],
            "source": content["details"]["environment"],
            "severity": _PAGER_SEVERITIES[content["severity"]],
            "timestamp": message["created"],
            "component": ", ".join(content["details"]["services"]),
            "custom_details": content["details"],
        },
    }
    answer = _post(name, f"{settings['api_url']}/v2/enqueue", True, expect=(202,), json=event)
    return {"dedup_key": str(_json(name, answer, True).get("dedup_key"))}


def _webhook(name: str, settings: Settings, message: Message, _earlier: Receipt | None) -> Receipt:
    """The message as JSON; a receiver can tell a second delivery by the Idempotency-Key."""
    headers = {"Idempotency-Key": message["id"]}
    if settings.get("token_file"):
        headers["Authorization"] = f"Bearer {read_secret(settings['token_file'], 'token_file')}"
    body = {"version": 1, **{key: message[key] for key in ("id", "run", "event", "created")}, **message["content"]}
    _post(name, settings["url"], False, expect=(200, 201, 202, 204), headers=headers, json=body)
    return {}


_TYPES: dict[str, Callable[[str, Settings, Message, Any], Receipt]] = {
    "slack": _slack,
    "slack_webhook": _slack_webhook,
    "twilio": _twilio,
    "pagerduty": _pagerduty,
    "webhook": _webhook,
}


def _post(name: str, url: str, repeatable: bool, expect: tuple[int, ...] = (200,), **request: Any) -> api.Response:
    try:
        return api.request("POST", url, timeout=ATTEMPT_SECONDS, expect=expect, named=name, **request)
    except api.ConnectionFailed as error:
        raise (Ambiguous if error.maybe_applied and not repeatable else NotYet)(str(error)) from None
    except api.BadAnswer as error:
        raise (NotYet if repeatable else Ambiguous)(str(error)) from None
    except api.UnexpectedStatus as error:
        raise _refusal(error, repeatable) from None


def _refusal(error: api.UnexpectedStatus, repeatable: bool) -> RollbackError:
    """What a status means: a server that says it failed did not deliver, a gateway does not know."""
    status = error.response.status
    if status in (502, 504) and not repeatable:
        return Ambiguous(str(error))
    if status == 429 or status >= 500:
        return NotYet(str(error), error.response.retry_after())
    said = "".join(character for character in error.response.text[:200] if character.isprintable())
    return Rejected(f"{error}: {said}")


def _json(name: str, answer: api.Response, repeatable: bool) -> dict[str, Any]:
    try:
        said = answer.json()
    except api.BadAnswer as error:
        raise (NotYet if repeatable else Ambiguous)(str(error)) from None
    if not isinstance(said, dict):
        raise (NotYet if repeatable else Ambiguous)(f"{name}: answered with something that is no object")
    return said


def _secret_url(settings: Settings) -> str:
    """An address that whoever knows it can post to: it is in no message, not even in one about itself."""
    url = read_secret(settings["url_file"], "url_file")
    try:
        return validate.url(url, "url_file")
    except BadInput:
        raise BadInput(f"url_file: {settings['url_file']} does not hold an https URL") from None


def _escaped(text: str) -> str:
    """Text as Slack wants it, in which nothing is a link or a mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
