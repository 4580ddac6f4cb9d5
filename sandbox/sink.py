"""A sink for notifications: answers like Slack, Twilio and PagerDuty, and keeps what it receives as JSON lines."""
from __future__ import annotations

import argparse
import json
import os
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

MODES = {
    "answer": "as each API does",
    "fail": "with the refusal that each of them uses",
    "busy": "that there were too many requests",
    "error": "with HTTP 500",
    "hang": "only after a minute",
    "drop": "not at all, although it took what was sent",
}
APIS = ("slack", "slack_webhook", "twilio", "pagerduty", "webhook")
_HANG_SECONDS = 60
_LARGEST_BODY = 1 << 20
_ROUTING_KEY_LENGTH = 32

# A status and a body: text, or what becomes JSON.
Answer = tuple[int, Any]
_REFUSALS: dict[str, Answer] = {
    "slack": (200, {"ok": False, "error": "invalid_auth"}),
    "slack_webhook": (403, "invalid_token"),
    "twilio": (401, {"code": 20003, "message": "Authenticate", "status": 401}),
    "pagerduty": (400, {"status": "invalid event", "message": "Event object is invalid", "errors": ["routing_key"]}),
    "webhook": (401, "unauthorized"),
}
_TOO_MANY: dict[str, Answer] = {
    "slack": (429, {"ok": False, "error": "ratelimited"}),
    "twilio": (429, {"code": 20429, "message": "Too Many Requests", "status": 429}),
}


def api_of(path: str) -> str | None:
    """Which API a path belongs to."""
    if path in ("/api/chat.postMessage", "/api/chat.update"):
        return "slack"
    if path.startswith("/services/"):
        return "slack_webhook"
    if path.startswith("/2010-04-01/Accounts/") and path.endswith("/Messages.json"):
        return "twilio"
    return {"/v2/enqueue": "pagerduty", "/hook": "webhook"}.get(path)


class Sink(ThreadingHTTPServer):
    """What was received, in `file`; how each API answers, in `modes`."""

    daemon_threads = True

    def __init__(self, port: int, file: Path) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.file = file
        self.modes = dict.fromkeys(APIS, "answer")
        self.posted: set[str] = set()
        self.writing = threading.Lock()
        self.forget()

    def forget(self) -> None:
        self.file.write_text("")
        self.file.chmod(0o600)

    def keep(self, record: dict[str, Any]) -> None:
        with self.writing, self.file.open("a") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def received(self) -> list[dict[str, Any]]:
        with self.writing:
            return [json.loads(line) for line in self.file.read_text().splitlines()]


class Handler(BaseHTTPRequestHandler):
    server: Sink
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(200, self.server.received())

    def do_DELETE(self) -> None:
        self.server.forget()
        self._send(200, [])

    def do_POST(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("content-length", 0)), _LARGEST_BODY)).decode()
        api = api_of(self.path)
        if self.path == "/_control":
            self._send(*self._control(body))
        elif api is None:
            self._send(404, "not found")
        else:
            self._take(api, self._content(body))

    def _take(self, api: str, content: Any) -> None:
        """Answer as the API would in its present mode; what it took is kept as accepted."""
        mode = self.server.modes[api]
        status, answer = self._answer(api, mode, content if isinstance(content, dict) else {})
        accepted = status < 300 and not (isinstance(answer, dict) and answer.get("ok") is False)
        self.server.keep(
            {
                "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
                "path": self.path,
                "headers": dict(self.headers.items()),
                "body": content,
                "accepted": accepted,
            }
        )
        if mode == "drop":
            self.close_connection = True
            return
        if mode == "hang":
            time.sleep(_HANG_SECONDS)
        self._send(status, answer)

    def _content(self, body: str) -> Any:
        kind = self.headers.get("content-type", "")
        if "json" in kind:
            try:
                return json.loads(body)
            except ValueError:
                return body
        if "form" in kind:
            return {name: values[0] for name, values in parse_qs(body).items()}
        return body

    def _control(self, body: str) -> Answer:
        try:
            wanted = json.loads(body)
            mode, apis = wanted["mode"], wanted.get("apis", APIS)
        except (ValueError, KeyError, TypeError):
            mode, apis = None, APIS
        if mode not in MODES or not set(apis) <= set(APIS):
            return 400, {"error": f"mode: one of {', '.join(MODES)}; apis: any of {', '.join(APIS)}"}
        self.server.modes.update(dict.fromkeys(apis, mode))
        return 200, {"mode": mode}

    def _answer(self, api: str, mode: str, fields: dict[str, Any]) -> Answer:
        if mode == "error":
            return 500, "internal error"
        if mode == "busy":
            return _TOO_MANY.get(api, (429, "rate limited"))
        if mode == "fail" or not self._is_authorized(api, fields):
            return _REFUSALS[api]
        answer = {"slack": self._slack_message, "slack_webhook": _webhook, "twilio": _sms, "pagerduty": _event}
        return answer[api](fields) if api in answer else (200, {"received": True})

    def _is_authorized(self, api: str, fields: dict[str, Any]) -> bool:
        """Whether a credential of the API's kind came along; a sink knows none to compare it with."""
        scheme = self.headers.get("authorization", "").partition(" ")[0]
        if api == "pagerduty":
            return len(str(fields.get("routing_key", ""))) == _ROUTING_KEY_LENGTH
        return {"slack": scheme == "Bearer", "twilio": scheme == "Basic", "webhook": scheme == "Bearer"}.get(api, True)

    def _slack_message(self, fields: dict[str, Any]) -> Answer:
        updates = self.path.endswith("update")
        if not fields.get("channel"):
            return 200, {"ok": False, "error": "channel_not_found"}
        if not fields.get("text") and not fields.get("blocks"):
            return 200, {"ok": False, "error": "no_text"}
        if updates and fields.get("ts") not in self.server.posted:
            return 200, {"ok": False, "error": "message_not_found"}
        timestamp = fields["ts"] if updates else f"{time.time():.6f}"
        self.server.posted.add(timestamp)
        return 200, {"ok": True, "channel": "C0SANDBOX01", "ts": timestamp}

    def _send(self, status: int, content: Any) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        data = text.encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain" if isinstance(content, str) else "application/json")
        self.send_header("content-length", str(len(data)))
        if status == 429:
            self.send_header("retry-after", "1")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """What came in is in the file."""


def _webhook(fields: dict[str, Any]) -> Answer:
    return (200, "ok") if fields.get("text") or fields.get("blocks") else (400, "no_text")


def _sms(fields: dict[str, Any]) -> Answer:
    missing = [name for name in ("To", "Body") if not fields.get(name)]
    if missing:
        return 400, {"code": 21604, "message": f"A '{missing[0]}' is required", "status": 400}
    return 201, {"sid": f"SM{os.urandom(16).hex()}", "status": "queued", "error_code": None, "to": fields["To"]}


def _event(fields: dict[str, Any]) -> Answer:
    payload = fields.get("payload") or {}
    action = fields.get("event_action")
    if action not in ("trigger", "acknowledge", "resolve"):
        return 400, {"status": "invalid event", "message": "Event object is invalid", "errors": ["'event_action'"]}
    missing = [name for name in ("summary", "source", "severity") if action == "trigger" and not payload.get(name)]
    if missing:
        errors = [f"'payload.{name}' is missing or blank" for name in missing]
        return 400, {"status": "invalid event", "message": "Event object is invalid", "errors": errors}
    key = fields.get("dedup_key") or os.urandom(16).hex()
    return 202, {"status": "success", "message": "Event processed", "dedup_key": key}


def main() -> None:
    parser = argparse.ArgumentParser(description="A sink for Slack messages, SMS and pages")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--file", type=Path, required=True, help="where everything received goes, as JSON lines")
    arguments = parser.parse_args()
    Sink(arguments.port, arguments.file).serve_forever()


if __name__ == "__main__":
    main()
