"""A sink for notifications: answers like Slack and Twilio, and keeps everything it receives as JSON lines."""
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
    "answer": "as Slack and Twilio do",
    "fail": "with the refusal that each of them uses",
    "hang": "only after a minute",
    "error": "with HTTP 500",
}
_HANG_SECONDS = 60
_LARGEST_BODY = 1 << 20

Answer = tuple[int, Any]


class Sink(ThreadingHTTPServer):
    """What was received, in `file`; how to answer, in `mode`."""

    daemon_threads = True

    def __init__(self, port: int, file: Path) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.file = file
        self.mode = "answer"
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
        if self.path == "/_control":
            self._send(*self._control(body))
            return
        content = self._content(body)
        self.server.keep(
            {
                "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
                "path": self.path,
                "headers": dict(self.headers.items()),
                "body": content,
            }
        )
        self._send(*self._answer(content))

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
            mode = json.loads(body)["mode"]
        except (ValueError, KeyError, TypeError):
            mode = None
        if mode not in MODES:
            return 400, {"error": f"mode: one of {', '.join(MODES)}"}
        self.server.mode = mode
        return 200, {"mode": mode}

    def _answer(self, content: Any) -> Answer:
        if self.server.mode == "error":
            return 500, "internal error"
        if self.server.mode == "hang":
            time.sleep(_HANG_SECONDS)
        fails = self.server.mode == "fail"
        if self.path.startswith("/services/"):
            return (403, "invalid_token") if fails else (200, "ok")
        if self.path in ("/api/chat.postMessage", "/api/chat.update"):
            return 200, {"ok": False, "error": "invalid_auth"} if fails else self._slack_message(content)
        if self.path.startswith("/2010-04-01/Accounts/") and self.path.endswith("/Messages.json"):
            return (401, {"code": 20003, "message": "Authenticate", "status": 401}) if fails else _sms(content)
        return 404, "not found"

    def _slack_message(self, content: Any) -> dict[str, Any]:
        fields = content if isinstance(content, dict) else {}
        if not fields.get("channel"):
            return {"ok": False, "error": "channel_not_found"}
        if not fields.get("text") and not fields.get("blocks"):
            return {"ok": False, "error": "no_text"}
        if self.path.endswith("update") and fields.get("ts") not in self.server.posted:
            return {"ok": False, "error": "message_not_found"}
        timestamp = fields["ts"] if self.path.endswith("update") else f"{time.time():.6f}"
        self.server.posted.add(timestamp)
        return {"ok": True, "channel": "C0SANDBOX01", "ts": timestamp}

    def _send(self, status: int, content: Any) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        data = text.encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain" if isinstance(content, str) else "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """What came in is in the file."""


def _sms(content: Any) -> Answer:
    fields = content if isinstance(content, dict) else {}
    missing = [name for name in ("To", "Body") if not fields.get(name)]
    if missing:
        return 400, {"code": 21604, "message": f"A '{missing[0]}' is required", "status": 400}
    return 201, {"sid": f"SM{os.urandom(16).hex()}", "status": "queued", "error_code": None, "to": fields["To"]}


def main() -> None:
    parser = argparse.ArgumentParser(description="A sink for Slack messages and SMS")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--file", type=Path, required=True, help="where everything received goes, as JSON lines")
    arguments = parser.parse_args()
    Sink(arguments.port, arguments.file).serve_forever()


if __name__ == "__main__":
    main()
