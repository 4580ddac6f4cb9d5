"""The one door to HTTP, against a server that does what servers do."""
from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils import api
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, RollbackError
from ansible_collections.marketsage.rollback.tests.helpers import free_port
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

SECRET = "a-token-that-nobody-may-see"
Answer = Callable[[BaseHTTPRequestHandler], None]


def says(status: int, body: bytes = b"{}", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def hangs_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


class Server:
    """Gives the answers of its script, one a request, and keeps what it was asked."""

    def __init__(self) -> None:
        self.script: list[Answer] = []
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.over = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                server.script.pop(0)(self)

            do_GET = do_POST = answer

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server = Server()
    yield server
    assert server.script == [], "an answer was not asked for"
    server.close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, none of which is really made."""
    pauses: list[float] = []
    monkeypatch.setattr(api, "sleep", pauses.append)
    return pauses


@pytest.fixture
def closed_port() -> int:
    return free_port()


def test_a_request_and_its_answer(server: Server) -> None:
    server.script = [says(200, b'{"status": "ok"}', X_Release="abc")]
    response = api.request("POST", f"{server.url}/a?b=c", headers={"X-Who": "me"}, json={"n": 1}, timeout=5)
    assert (response.status, response.headers["x-release"], response.json()) == (200, "abc", {"status": "ok"})
    method, path, headers, body = server.asked[0]
    assert (method, path, body) == ("POST", "/a?b=c", b'{"n": 1}')
    assert (headers["x-who"], headers["content-type"]) == ("me", "application/json")


def test_an_unexpected_status_carries_the_answer(server: Server) -> None:
    server.script = [says(500, b"down"), says(503)]
    with pytest.raises(api.UnexpectedStatus, match=r"GET http://127.0.0.1:\d+/health answered 500") as caught:
        api.request("GET", f"{server.url}/health?key={SECRET}", timeout=5)
    assert caught.value.response.text == "down"
    assert SECRET not in str(caught.value)
    assert api.request("GET", server.url, timeout=5, expect=(503,)).status == 503


def test_a_redirect_is_not_followed(server: Server) -> None:
    server.script = [says(302, Location=f"{server.url}/elsewhere")]
    with pytest.raises(api.UnexpectedStatus, match="answered 302"):
        api.request("GET", server.url, headers={"Authorization": SECRET}, timeout=5)
    assert len(server.asked) == 1


@pytest.mark.parametrize("url", ["http://api.example.com/", "ftp://127.0.0.1/", "file:///etc/passwd", "https://u:p@x.y"])
def test_only_https_or_loopback(url: str) -> None:
    with pytest.raises(BadInput, match="url: "):
        api.request("GET", url, timeout=5)


def self_signed(directory: Path) -> ssl.SSLContext:
    """What a server for 127.0.0.1 shows when it vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    certificate = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    pem = directory / "server.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = certificate.add_extension(address, critical=False).sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    pem.write_bytes(private + public)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def test_a_certificate_nobody_vouches_for_is_refused_before_anything_is_sent(server: Server, tmp_path: Path) -> None:
    server.http.socket = self_signed(tmp_path).wrap_socket(server.http.socket, server_side=True)
    with pytest.raises(api.ConnectionFailed, match="certificate verify failed") as caught:
        api.request("GET", server.url.replace("http:", "https:"), headers={"Authorization": SECRET}, timeout=5)
    assert not caught.value.maybe_applied
    assert server.asked == []


def test_a_refused_connection_was_surely_not_applied(closed_port: int) -> None:
    with pytest.raises(api.ConnectionFailed, match="refused") as caught:
        api.request("POST", f"http://127.0.0.1:{closed_port}/", timeout=5)
    assert not caught.value.maybe_applied


def test_a_lost_answer_was_perhaps_applied(server: Server) -> None:
    server.script = [hangs_up]
    with pytest.raises(api.ConnectionFailed) as caught:
        api.request("POST", server.url, timeout=5)
    assert caught.value.maybe_applied


def test_an_answer_that_drips_ends_at_the_deadline(server: Server) -> None:
    def drips(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not server.over.wait(0.05):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    server.script = [drips]
    with pytest.raises(api.ConnectionFailed, match=r"no answer within 0\.5 s") as caught:
        api.request("GET", server.url, timeout=0.5)
    assert caught.value.maybe_applied


def test_an_answer_has_a_size(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "SIZE_LIMIT", 10)
    server.script = [says(200, b"x" * 11), says(200, b"x" * 10)]
    with pytest.raises(api.BadAnswer, match="more than 10 bytes"):
        api.request("GET", server.url, timeout=5)
    assert api.request("GET", server.url, timeout=5).body == b"x" * 10


def test_what_is_no_json_is_said_to_be_none(server: Server) -> None:
    server.script = [says(200, b"<html>")]
    with pytest.raises(api.BadAnswer, match="not JSON"):
        api.request("GET", server.url, timeout=5).json()


def test_a_broken_token_is_not_quoted(server: Server) -> None:
    with pytest.raises(BadInput) as caught:
        api.request("GET", server.url, headers={"Authorization": f"Bearer {SECRET}\nX: y"}, timeout=5)
    assert SECRET not in str(caught.value)


def ask(server: Server, changes: bool, seconds: float = 60) -> api.Response:
    return api.request_until_answered("POST", server.url, json={}, deadline=Deadline(seconds), changes=changes)


@pytest.mark.parametrize("changes", [True, False])
def test_a_rate_limit_is_waited_for_as_long_as_the_server_asks(
    server: Server, pauses: list[float], changes: bool
) -> None:
    server.script = [says(429, Retry_After="7"), says(200)]
    assert ask(server, changes).status == 200
    assert pauses == [7]


def test_a_limit_beyond_the_deadline_is_not_waited_for(server: Server, pauses: list[float]) -> None:
    server.script = [says(429, Retry_After="3600")]
    with pytest.raises(api.UnexpectedStatus, match="429"):
        ask(server, changes=False)
    assert pauses == []


def test_a_read_is_repeated_after_every_kind_of_absence(server: Server, pauses: list[float]) -> None:
    server.script = [hangs_up, says(503), says(502), says(200)]
    assert ask(server, changes=False).status == 200
    assert pauses == [1, 2, 4]


@pytest.mark.parametrize("answer", [hangs_up, says(502), says(503, Retry_After="1"), says(504)])
def test_a_change_that_may_have_been_applied_is_sent_once(server: Server, pauses: list[float], answer: Answer) -> None:
    server.script = [answer]
    with pytest.raises(RollbackError):
        ask(server, changes=True)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_a_definite_answer_is_not_asked_for_again(server: Server, pauses: list[float], status: int) -> None:
    server.script = [says(status)]
    with pytest.raises(api.UnexpectedStatus):
        ask(server, changes=False)


def test_a_change_that_did_not_arrive_is_sent_again(
    server: Server, monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    real, targets = api._send, [f"http://127.0.0.1:{closed_port}", server.url]

    def to_the_next(wanted: Any, *rest: Any) -> api.Response:
        wanted.full_url = targets.pop(0)
        return real(wanted, *rest)

    monkeypatch.setattr(api, "_send", to_the_next)
    monkeypatch.setattr(api, "sleep", lambda _: None)
    server.script = [says(200)]
    assert ask(server, changes=True).status == 200


def test_attempts_end(server: Server, pauses: list[float]) -> None:
    server.script = [says(503)] * 5
    with pytest.raises(api.UnexpectedStatus):
        ask(server, changes=False, seconds=600)
    assert len(server.asked) == 5
