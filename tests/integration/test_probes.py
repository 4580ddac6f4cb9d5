"""The kinds of checks on the real parts: each passing, failing, and unknown where the truth cannot be told."""
from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from ansible_collections.marketsage.rollback.plugins.modules import health_gate
from ansible_collections.marketsage.rollback.sandbox import debian
from ansible_collections.marketsage.rollback.tests.helpers import eventually, free_port
from test_redis_sessions import PASSWORD, server

PAGES = {
    "/good": "<h1>Contacts</h1><input id=email><button onclick=\"document.title=email.value\">Go</button>",
    "/console": "<h1>Contacts</h1><script>console.error('analytics: not loaded')</script>",
    "/throws": "<h1>Contacts</h1><script>undefinedFunction()</script>",
    "/unanswered": "<h1>Contacts</h1><img src=http://127.0.0.1:9/x.png>",
}

Probe = Callable[..., dict[str, Any]]


def secret(directory: Path, text: str) -> str:
    path = directory / "secret"
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def probe(call_module: Callable[..., dict[str, Any]]) -> Probe:
    """Make one check through the module and return its result."""

    def make(kind: str, **parameters: Any) -> dict[str, Any]:
        check = {"name": "a line", "timeout": 20, kind: parameters}
        answer = call_module(health_gate, checks=[check], passes=1, timeout=0.1, fail=False)
        assert "results" in answer, answer
        assert answer["passed"] == (answer["results"][0]["status"] == "passed")
        return dict(answer["results"][0])

    return make


def test_a_check_of_no_kind_or_of_two_is_bad_input(call_module: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    two = {"name": "both", "command": {"argv": ["true"]}, "redis": {"url_file": str(tmp_path)}}
    for check, said in (({"name": "nothing"}, "it has none"), (two, "it has redis, command")):
        answer = call_module(health_gate, checks=[check])
        assert (answer["failed"], answer["exit_code"]) == (True, 2), answer
        assert "must have exactly one of requests, sql, redis" in answer["msg"]
        assert answer["msg"].endswith(said)


@pytest.fixture
def url_file(database_url: str, tmp_path: Path) -> str:
    return secret(tmp_path, database_url)


@pytest.mark.parametrize(
    ("query", "equals", "said"),
    [
        ("SELECT 6 * 7", "42", "passed the query gives '42'"),
        ("SELECT 6 * 7", "43", "failed the query gives '42', expected '43'"),
        ("SELECT 1 WHERE false", "1", "failed the query gives None"),
        ("CREATE TABLE left_behind (id int)", "1", "unknown the database cannot be read: cannot execute CREATE TABLE"),
    ],
)
def test_sql(probe: Probe, url_file: str, query: str, equals: str, said: str) -> None:
    result = probe("sql", url_file=url_file, query=query, equals=equals)
    assert f"{result['status']} {result['evidence']}".startswith(said), result


def test_sql_is_unknown_without_the_database(probe: Probe, tmp_path: Path) -> None:
    url_file = secret(tmp_path, "postgresql://marketsage:hidden@127.0.0.1:9/marketsage")
    result = probe("sql", url_file=url_file, query="SELECT 1", equals="1")
    assert result["status"] == "unknown"
    assert "hidden" not in result["evidence"]


def test_redis(probe: Probe, tmp_path: Path) -> None:
    with server(tmp_path, "--requirepass", PASSWORD) as port:
        url_file = secret(tmp_path, f"redis://:p%40ss%3Aword%2F1@127.0.0.1:{port}/0")
        assert probe("redis", url_file=url_file)["evidence"] == "Redis answers"
        few = probe("redis", url_file=url_file, keys="sess:*", at_least=1)
        assert (few["status"], few["evidence"]) == ("failed", "0 keys match sess:*, expected at least 1")
    gone = probe("redis", url_file=url_file)
    assert gone["status"] == "failed"
    assert "p@ss" not in gone["evidence"]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary = debian.program("prometheus", "prometheus")
    if binary is None:
        pytest.skip("no Prometheus is installed, and Debian's cannot be downloaded")
    directory = tmp_path_factory.mktemp("prometheus")
    port = free_port()
    scrapes = f"scrape_configs: [{{job_name: own, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n"
    (directory / "prometheus.yml").write_text(f"global: {{scrape_interval: 1s}}\n{scrapes}")
    options = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}"]
    process = subprocess.Popen([binary, *options], cwd=directory, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    eventually(lambda: _scraped(url))
    yield url
    process.terminate()
    process.wait()


def _scraped(url: str) -> bool:
    try:
        answer = httpx.get(f"{url}/api/v1/query", params={"query": "up"}, trust_env=False)
        return answer.is_success and bool(answer.json()["data"]["result"])
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    ("query", "bounds", "status"),
    [
        ("sum(up)", {"at_least": 1}, "passed"),
        ("sum(up)", {"at_least": 2}, "failed"),
        ("sum(up)", {"at_most": 0.5}, "failed"),
        ("time() - min(timestamp(up))", {"at_most": 60}, "passed"),
        ('sum(up{job="nobody"})', {"at_least": 0}, "unknown"),
        ("sum(up) / 0 * 0", {"at_least": 0}, "unknown"),
    ],
)
def test_prometheus(probe: Probe, prometheus: str, query: str, bounds: dict[str, float], status: str) -> None:
    result = probe("prometheus", url=prometheus, query=query, **bounds)
    assert result["status"] == status, result


def test_a_prometheus_that_is_not_there_is_unknown(probe: Probe) -> None:
    assert probe("prometheus", query="sum(up)")["evidence"] == "no Prometheus is configured (prometheus_url)"
    assert probe("prometheus", url="http://127.0.0.1:9", query="sum(up)")["status"] == "unknown"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """A server with a certificate for app.example.test that ends in ten days: its port, and what to trust."""
    directory = tmp_path_factory.mktemp("tls")
    name = ["-subj", "/CN=app.example.test", "-addext", "subjectAltName=DNS:app.example.test"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "10", *name]
    subprocess.run([*make, "-keyout", "key.pem", "-out", "cert.pem"], cwd=directory, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    https = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    https.socket = context.wrap_socket(https.socket, server_side=True)
    threading.Thread(target=https.serve_forever, daemon=True).start()
    yield https.server_port, directory / "cert.pem"
    https.shutdown()


def test_certificate(probe: Probe, tls: tuple[int, Path]) -> None:
    port, authority = tls
    where = {"address": "127.0.0.1", "port": port, "ca_file": str(authority)}
    assert probe("certificate", host="app.example.test", **where)["status"] == "passed"
    old = probe("certificate", host="app.example.test", days=30, **where)
    assert (old["status"], "expected at least 30" in old["evidence"]) == ("failed", True)
    other = probe("certificate", host="admin.example.test", **where)
    assert (other["status"], "is not valid" in other["evidence"]) == ("failed", True)
    untrusted = probe("certificate", host="app.example.test", address="127.0.0.1", port=port)
    assert (untrusted["status"], "is not valid" in untrusted["evidence"]) == ("failed", True)


def test_command(probe: Probe) -> None:
    assert probe("command", argv=["/bin/true"])["status"] == "passed"
    failed = probe("command", argv=[sys.executable, "-c", "print('lint: 3 errors'); exit(4)"])
    assert (failed["status"], "exited with 4, expected 0: lint: 3 errors" in failed["evidence"]) == ("failed", True)
    assert probe("command", argv=["/no/such/program"])["status"] == "unknown"
    literal = probe("command", argv=["/bin/sh", "-c", 'test "$1" = "; exit 3"', "sh", "; exit 3"])
    assert literal["status"] == "passed"


@pytest.fixture(scope="module")
def pages() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<!doctype html><link rel=icon href=data:,>{PAGES.get(self.path, '')}".encode()
            self.send_response(200 if self.path in PAGES else 500)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            pass

    site = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{site.server_port}"
    site.shutdown()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium is installed")
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/good", "passed 4 steps in a browser, no error"),
        ("/console", "failed console error: analytics: not loaded"),
        ("/throws", "failed the page throws: undefinedFunction is not defined"),
        ("/unanswered", "failed failed request: http://127.0.0.1:9/x.png"),
        ("/broken", "failed http://app.example.test/broken answered 500"),
    ],
)
def test_browser(probe: Probe, pages: str, tmp_path: Path, path: str, said: str) -> None:
    clicks = [{"fill": "#email", "value": "me@example.test"}, {"click": "button"}] if path == "/good" else []
    steps = [{"open": f"http://app.example.test{path}"}, *clicks, {"see": "Contacts"}]
    result = probe("browser", steps=steps, resolve={"app.example.test": pages}, screenshots=str(tmp_path / "shots"))
    assert f"{result['status']} {result['evidence']}".startswith(said), result
    (picture,) = (tmp_path / "shots").iterdir()
    assert str(picture) in result["evidence"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("variable", ["PATH", "CHROME_BIN"])
def test_without_a_browser_it_is_unknown_and_never_green(
    probe: Probe, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "")
    result = probe("browser", steps=[{"open": "http://127.0.0.1:9/"}])
    assert (result["status"], result["evidence"]) == ("unknown", "no browser is installed (chromium)")
