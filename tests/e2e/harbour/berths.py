"""The booking of berths: GET /up, POST /berths, GET and DELETE /berths/NUMBER."""
import itertools
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

RELEASE = json.loads(Path("release.json").read_text())["release"]
NUMBERS = itertools.count(1)
BERTHS: dict[str, str] = {}


class Office(BaseHTTPRequestHandler):
    def answer(self, status: int, **body: object) -> None:
        content = json.dumps(body).encode() if body else b""
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        number = self.path.rpartition("/")[2]
        if self.path == "/up":
            self.answer(200, release=RELEASE)
        elif number in BERTHS:
            self.answer(200, berth=number, ship=BERTHS[number])
        else:
            self.answer(404)

    def do_POST(self) -> None:
        ship = json.loads(self.rfile.read(int(self.headers["content-length"])))["ship"]
        number = str(next(NUMBERS))
        BERTHS[number] = ship
        self.answer(201, berth=number, ship=ship)

    def do_DELETE(self) -> None:
        BERTHS.pop(self.path.rpartition("/")[2], None)
        self.answer(204)


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Office).serve_forever()
