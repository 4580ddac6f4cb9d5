"""lb_maintenance against balancers that obey and balancers that lie."""
from __future__ import annotations

import json
import os
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.marketsage.rollback.plugins.module_utils import balancer
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput
from ansible_collections.marketsage.rollback.plugins.modules import lb_maintenance

Call = Callable[..., dict[str, Any]]
# A lie lasts: waiting for its end is only as long as a test needs.
BRIEFLY = 0.3
OTHER_RUN = "20261120T080000Z-planned-0001"


class HAProxy:
    """A runtime socket with one map and two servers, s1 and `other`; `deaf` says ok to changes and makes none."""

    def __init__(self, directory: Path) -> None:
        self.socket = str(directory / "admin.sock")
        self.map_file = str(directory / "maintenance.map")
        self.map = {"all": "off", "message": "old words"}
        self.server = {"flags": 0, "sessions": 0}
        self.other = {"flags": 0, "operational": 2}
        self.deaf = False
        self.refusal = ""
        self.commands: list[str] = []
        self.file("off")

    def file(self, state: str) -> None:
        Path(self.map_file).write_text(f"# hand-written\nall {state}\nmessage old words\n")

    def answer(self, command: str) -> str:
        self.commands.append(command)
        words = command.replace("\\ ", "\0").split(" ")
        words = [word.replace("\0", " ") for word in words]
        if words[:2] == ["show", "map"]:
            if words[2] != self.map_file:
                return "Unknown map identifier. Please use #<id> or <file>.\n"
            return "".join(f"0x55 {key} {value}\n" for key, value in self.map.items())
        if command == "show servers state api":
            header = "# be_id be_name srv_id srv_name srv_op_state srv_admin_state"
            other = f"3 api 2 s2 {self.other['operational']} {self.other['flags']}"
            return f"1\n{header}\n3 api 1 s1 2 {self.server['flags']}\n{other}\n"
        if command == "show stat api 4 -1":
            return f"# pxname,svname,scur\napi,s1,{self.server['sessions']}\napi,s2,0\n"
        if command.startswith("show"):
            return "Can't find backend.\n"
        return self.change(words)

    def change(self, words: list[str]) -> str:
        if self.refusal or self.deaf:
            return self.refusal
        if words[1] == "map":
            self.map[words[3]] = words[4]
        else:
            self.server["flags"] = {"drain": 8, "ready": 0}[words[4]]
        return ""

    def changes(self) -> list[str]:
        return [command for command in self.commands if not command.startswith("show")]


class _Runtime(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        command = self.rfile.readline().decode().strip()
        self.wfile.write(self.server.haproxy.answer(command).encode() + b"\n")  # type: ignore[attr-defined]


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[HAProxy]:
    stand_in = HAProxy(tmp_path)
    server = socketserver.ThreadingUnixStreamServer(stand_in.socket, _Runtime)
    server.haproxy = stand_in  # type: ignore[attr-defined]
    with serving(server):
        yield stand_in


class Web:
    """An HTTP server that answers with what `pages` holds for METHOD PATH, and remembers what it was sent."""

    def __init__(self) -> None:
        self.url = ""
        self.pages: dict[str, Callable[[], tuple[int, dict[str, str], Any]]] = {}
        self.requests: list[tuple[str, Any, dict[str, str]]] = []

    def says(self, request: str, status: int, body: Any = None, **headers: str) -> None:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        self.pages[request] = lambda: (status, sent, body)


class _Handler(BaseHTTPRequestHandler):
    def answer(self) -> None:
        web: Web = self.server.web  # type: ignore[attr-defined]
        request = f"{self.command} {self.path}"
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        web.requests.append((request, json.loads(body) if body else None, dict(self.headers)))
        status, headers, answer = web.pages.get(request, lambda: (404, {}, {"error": "unknown"}))()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        text = json.dumps(answer).encode()
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Web]:
    stand_in = Web()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.web = stand_in  # type: ignore[attr-defined]
    stand_in.url = f"http://127.0.0.1:{server.server_port}"
    with serving(server):
        yield stand_in


@pytest.fixture
def page(haproxy: HAProxy, run: dict[str, Any], call_module: Call) -> Call:
    def ask(state: str, **arguments: Any) -> dict[str, Any]:
        given = {"socket": haproxy.socket, "map_file": haproxy.map_file, "run": run, "timeout": 10}
        if state == "enabled":
            given.update(owner="alice", reason="health answers 500")
        return call_module(lb_maintenance, provider="haproxy", state=state, **{**given, **arguments})

    return ask


# --- HAProxy: the page


def test_the_page_goes_up_in_runtime_and_file_with_a_name_on_it(
    page: Call, haproxy: HAProxy, run: dict[str, Any]
) -> None:
    result = page("enabled", text="We're back at 12:30")
    assert result["changed"] and result["enabled"] and result["lasting"]
    assert haproxy.map == {"all": "on", "message": "We're back at 12:30"}
    assert set(Path(haproxy.map_file).read_text().splitlines()) == {
        "# hand-written", "all on", "message We're back at 12:30",
    }
    assert (result["owner"], result["reason"], result["run"]) == ("alice", "health answers 500", run["id"])
    assert json.loads(Path(haproxy.map_file + ".json").read_text())["since"] == result["since"]


def test_a_second_time_changes_nothing(page: Call, haproxy: HAProxy) -> None:
    first = page("enabled")
    sent = len(haproxy.changes())
    again = page("enabled")
    assert not again["changed"] and again["since"] == first["since"]
    assert len(haproxy.changes()) == sent
    assert page("disabled")["changed"]
    assert not page("disabled")["changed"]
    assert not os.path.exists(haproxy.map_file + ".json")


def test_the_intent_and_the_outcome_are_on_record(page: Call, run: dict[str, Any]) -> None:
    page("enabled")
    journal = Path(run["state_dir"], "journal", f"{run['id']}.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in journal] == ["intent", "outcome"]


def test_status_needs_no_run_and_tells_whose_page_it_is(page: Call) -> None:
    page("enabled")
    result = page("status", run=None)
    assert not result["changed"] and result["enabled"] and result["owner"] == "alice"


def test_what_is_returned_is_what_is_documented(page: Call) -> None:
    documented = yaml.safe_load(lb_maintenance.RETURN)
    results = [page("enabled"), page("drained", backend="api", server="s1"), page("status", backend="api")]
    assert documented.keys() == set().union(*results) - {"changed", "diff", "invocation", "warnings"}


def test_a_change_without_a_run_is_refused(page: Call, haproxy: HAProxy) -> None:
    result = page("enabled", run=None)
    assert result["failed"] and result["exit_code"] == 3 and result["msg"].startswith("run:")
    assert haproxy.changes() == []


def test_check_mode_says_what_would_change_and_changes_nothing(
    page: Call, haproxy: HAProxy, run: dict[str, Any]
) -> None:
    result = page("enabled", check=True)
    assert result["changed"] and result["enabled"]
    assert result["diff"]["before"]["enabled"] is False and result["diff"]["after"]["owner"] == "alice"
    assert haproxy.changes() == [] and "all off" in Path(haproxy.map_file).read_text()
    assert not os.path.exists(run["state_dir"]) and not os.path.exists(haproxy.map_file + ".json")


@pytest.mark.parametrize(("runtime", "file"), [("on", "off"), ("off", "on")])
def test_runtime_and_file_that_disagree_are_repaired(page: Call, haproxy: HAProxy, runtime: str, file: str) -> None:
    page("enabled")
    haproxy.map["all"] = runtime
    haproxy.file(file)
    result = page("enabled")
    assert result["changed"] and result["enabled"] and result["lasting"]
    assert result["repaired"] == f"the balancer's runtime said {runtime}, its file {file}"
    assert haproxy.map["all"] == "on" and "all on" in Path(haproxy.map_file).read_text()


def test_anothers_page_stays_theirs(page: Call, haproxy: HAProxy, run: dict[str, Any]) -> None:
    page("enabled", owner="bob", reason="planned work", text="Planned work", run={**run, "id": OTHER_RUN})
    theirs = page("enabled")
    assert not theirs["changed"] and theirs["owner"] == "bob" and theirs["text"] == "Planned work"
    refused = page("disabled")
    assert refused["failed"] and refused["exit_code"] == 3
    assert "bob" in refused["msg"] and OTHER_RUN in refused["msg"] and "planned work" in refused["msg"]
    assert haproxy.map["all"] == "on"
    assert page("disabled", force=True)["enabled"] is False


def test_a_page_nobody_signed_is_not_taken_away(page: Call, haproxy: HAProxy) -> None:
    haproxy.map["all"] = "on"
    haproxy.file("on")
    refused = page("disabled")
    assert refused["exit_code"] == 3 and "no record" in refused["msg"]
    assert not page("enabled")["changed"]
    assert haproxy.changes() == []


def test_a_broken_record_does_not_keep_the_page_down(page: Call, haproxy: HAProxy) -> None:
    Path(haproxy.map_file + ".json").write_text("{torn")
    assert page("enabled")["owner"] == "alice"


def test_a_runtime_that_says_ok_and_does_nothing_is_found_out(page: Call, haproxy: HAProxy) -> None:
    haproxy.deaf = True
    result = page("enabled", timeout=BRIEFLY)
    assert result["failed"] and result["exit_code"] == 20 and "read back" in result["msg"]


def test_a_runtime_that_keeps_the_page_up_is_found_out(page: Call, haproxy: HAProxy) -> None:
    page("enabled")
    haproxy.deaf = True
    result = page("disabled", timeout=BRIEFLY)
    assert result["failed"] and result["exit_code"] == 20 and "still on" in result["msg"]


def test_a_reply_with_text_is_a_refusal(page: Call, haproxy: HAProxy) -> None:
    haproxy.refusal = "Permission denied"
    result = page("enabled")
    assert result["exit_code"] == 20 and "Permission denied" in result["msg"]


def test_no_haproxy_is_unknown_not_off(page: Call, tmp_path: Path, haproxy: HAProxy) -> None:
    result = page("status", socket=str(tmp_path / "none.sock"))
    assert result["failed"] and result["exit_code"] == 30 and "does not answer" in result["msg"]


def test_a_key_that_the_runtime_lacks_is_added(page: Call, haproxy: HAProxy) -> None:
    del haproxy.map["message"]
    page("enabled", text="Soon")
    assert haproxy.map["message"] == "Soon"


# --- the one change that is made without a record


def test_a_full_disk_does_not_keep_users_in_front_of_a_broken_system(
    page: Call, haproxy: HAProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    for name in ("balancer.write_atomically", "haproxy.write_atomically", "run.write_atomically", "run.Journal.append"):
        monkeypatch.setattr(f"{balancer.__package__}.{name}", full)
    result = page("enabled")
    assert result["changed"] and result["enabled"] is True and result["lasting"] is False
    assert haproxy.map["all"] == "on"
    assert "NOT ON RECORD" in str(result["warnings"])
    assert "reload" in str(result["warnings"])
    refused = page("disabled", force=True)
    assert refused["failed"] and haproxy.map["all"] == "on"


def test_a_broken_journal_does_not_either_but_nothing_else_goes_on(
    page: Call, haproxy: HAProxy, run: dict[str, Any]
) -> None:
    page("enabled")
    page("disabled")
    journal = Path(run["state_dir"], "journal", f"{run['id']}.jsonl")
    journal.write_text(journal.read_text().replace("alice", "mallory"))
    assert "NOT ON RECORD" in str(page("enabled")["warnings"])
    assert page("disabled")["exit_code"] == 30
    assert haproxy.map["all"] == "on"


def test_an_overtaken_run_may_not_even_switch_it_on(page: Call, haproxy: HAProxy, run: dict[str, Any]) -> None:
    page("enabled", run={**run, "fence": 7})
    page("disabled", run={**run, "fence": 7})
    assert page("enabled")["exit_code"] == 3
    assert haproxy.map["all"] == "off"


# --- the look from outside


def test_a_page_that_users_do_not_see_is_not_on(page: Call, web: Web) -> None:
    web.says("GET /", 200)
    result = page("enabled", look=[{"url": web.url + "/", "headers": {"Host": "api.marketsage.com"}}], timeout=BRIEFLY)
    assert result["exit_code"] == 20 and "api.marketsage.com" in result["msg"] and "without the page" in result["msg"]
    assert web.requests[0][2]["Host"] == "api.marketsage.com"


def test_an_ordinary_503_is_not_the_page(page: Call, web: Web) -> None:
    web.says("GET /", 503)
    assert page("enabled", look=[{"url": web.url + "/"}], timeout=BRIEFLY)["exit_code"] == 20


def test_a_page_that_users_still_see_is_not_off(page: Call, web: Web) -> None:
    web.says("GET /", 503, x_maintenance="on")
    looks = [{"url": web.url + "/"}]
    assert page("enabled", look=looks)["looks"] == [
        {"url": web.url + "/", "host": None, "status": 503, "page": True, "error": None}
    ]
    assert page("disabled", look=looks, timeout=BRIEFLY)["exit_code"] == 20


def test_what_the_page_looks_like_is_configurable(page: Call, web: Web) -> None:
    web.says("GET /", 502, x_down="yes")
    wanted = {"status": 502, "header": "X-Down", "value": "yes"}
    assert page("enabled", look=[{"url": web.url + "/"}], page=wanted)["enabled"]


# --- HAProxy: one server


def test_a_server_is_drained_and_put_back(page: Call, haproxy: HAProxy) -> None:
    result = page("drained", backend="api", server="s1")
    assert result["changed"] and result["server"]["admin"] == "drain" and haproxy.server["flags"] == 8
    assert not page("drained", backend="api", server="s1")["changed"]
    assert page("ready", backend="api", server="s1")["server"]["admin"] == "ready"


def test_a_server_with_requests_left_is_not_drained(page: Call, haproxy: HAProxy) -> None:
    haproxy.server["sessions"] = 3
    result = page("drained", backend="api", server="s1", timeout=BRIEFLY)
    assert result["exit_code"] == 20 and "3 sessions" in result["msg"]


def test_a_server_that_only_says_ok_is_not_drained(page: Call, haproxy: HAProxy) -> None:
    haproxy.deaf = True
    assert page("drained", backend="api", server="s1", timeout=BRIEFLY)["exit_code"] == 20


@pytest.mark.parametrize("other", [{"flags": 8, "operational": 2}, {"flags": 0, "operational": 0}])
def test_the_last_server_that_serves_stays_unless_forced(page: Call, haproxy: HAProxy, other: dict[str, int]) -> None:
    haproxy.other = other
    result = page("drained", backend="api", server="s1")
    assert result["exit_code"] == 20 and "last one that serves" in result["msg"] and haproxy.changes() == []
    assert page("drained", backend="api", server="s1", force=True)["server"]["admin"] == "drain"


def test_a_drain_is_written_down_before_the_runtime_is_told_and_what_the_file_says_of_others_stays(
    page: Call, haproxy: HAProxy, tmp_path: Path
) -> None:
    file = tmp_path / "servers.state"
    file.write_text("1\n# be_id be_name srv_id srv_name srv_op_state srv_admin_state\n3 api 2 s2 2 1\n4 web 1 s1 2 8\n")
    server = page("drained", backend="api", server="s1", state_file=str(file))["server"]
    assert (server["admin"], server["lasting"]) == ("drain", "drain")
    assert {"3 api 2 s2 2 1", "4 web 1 s1 2 8", "3 api 1 s1 2 8"} == set(file.read_text().splitlines()[2:])
    assert not page("drained", backend="api", server="s1", state_file=str(file))["changed"]
    server = page("ready", backend="api", server="s1", state_file=str(file))["server"]
    assert (server["admin"], server["lasting"]) == ("ready", "ready")
    assert {"3 api 2 s2 2 1", "4 web 1 s1 2 8"} == set(file.read_text().splitlines()[2:])


def test_a_drain_that_a_reload_would_undo_is_written_down_later_and_without_a_file_that_is_said(
    page: Call, haproxy: HAProxy, tmp_path: Path
) -> None:
    result = page("drained", backend="api", server="s1")
    assert result["server"]["lasting"] is None and "a reload of HAProxy undoes" in str(result["warnings"])
    result = page("drained", backend="api", server="s1", state_file=str(tmp_path / "servers.state"))
    assert result["changed"] and result["server"]["lasting"] == "drain" and "warnings" not in result


@pytest.mark.parametrize("state", ["drained", "ready"])
def test_what_cannot_be_written_down_is_not_done(page: Call, haproxy: HAProxy, tmp_path: Path, state: str) -> None:
    haproxy.server["flags"] = 0 if state == "drained" else 8
    result = page(state, backend="api", server="s1", state_file=str(tmp_path / "none" / "servers.state"))
    assert result["exit_code"] == 20 and "is as it was" in result["msg"] and haproxy.changes() == []


def test_check_mode_drains_nothing(page: Call, haproxy: HAProxy) -> None:
    result = page("drained", backend="api", server="s1", check=True)
    assert result["changed"] and result["diff"]["after"]["admin"] == "drain" and haproxy.changes() == []


# --- bad input


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"text": "<script>alert(1)</script>"}, "text"),
        ({"text": "one\ntwo"}, "text"),
        ({"text": "a; set map x"}, "text"),
        ({"text": "x" * 201}, "text"),
        ({"owner": "--help"}, "owner"),
        ({"reason": "no"}, "reason"),
        ({"socket": "10.0.0.1:9999"}, "socket"),
        ({"map_file": "/nowhere/else.map"}, "map_file"),
        ({"map_file": None}, "map_file"),
        ({"look": [{"url": "http://api.example.com/"}]}, "look.url"),
        ({"look": [{"url": "https://user:pw@api.example.com/"}]}, "look.url"),
    ],
)
def test_bad_input_is_one_line_that_names_the_parameter(
    page: Call, haproxy: HAProxy, arguments: dict[str, Any], named: str
) -> None:
    result = page("enabled", **arguments)
    assert result["failed"] and result["msg"].startswith(f"{named}:") and "\n" not in result["msg"]
    assert result["exit_code"] == 2 and haproxy.changes() == []


@pytest.mark.parametrize(
    ("backend", "server", "named"),
    [("none", "s1", "backend"), ("api", "s9", "server"), ("api", "s1;x", "server")],
)
def test_a_server_that_is_not_there_is_bad_input(page: Call, backend: str, server: str, named: str) -> None:
    result = page("drained", backend=backend, server=server)
    assert result["exit_code"] == 2 and result["msg"].startswith(f"{named}:")


@pytest.mark.parametrize("text", ["We're back soon.", "Back at 12:30 (UTC)!", "ok"])
def test_plain_words_are_a_message(text: str) -> None:
    assert balancer.plain_text(text) == text


@pytest.mark.parametrize("text", ["", " x", "x ", "a&b", 'a"b', "a\\b", "über", None, 5])
def test_anything_else_is_not(text: Any) -> None:
    with pytest.raises(BadInput):
        balancer.plain_text(text)


# --- http


class Facade:
    """`POST|DELETE|GET /maintenance-mode`; `idle` answers 200 and does nothing."""

    def __init__(self, web: Web) -> None:
        self.on = False
        self.idle = False
        web.pages["POST /maintenance-mode"] = lambda: self.switch(True)
        web.pages["DELETE /maintenance-mode"] = lambda: self.switch(False)
        web.pages["GET /maintenance-mode"] = lambda: (200, {}, {"maintenance": self.on})
        web.pages["GET /site"] = lambda: (503, {"x-maintenance": "on"}, {}) if self.on else (200, {}, {})

    def switch(self, on: bool) -> tuple[int, dict[str, str], Any]:
        self.on = self.on if self.idle else on
        return 200, {}, {}


@pytest.fixture
def facade(web: Web) -> Facade:
    return Facade(web)


@pytest.fixture
def http_page(web: Web, run: dict[str, Any], tmp_path: Path, call_module: Call) -> Call:
    def ask(state: str, **arguments: Any) -> dict[str, Any]:
        given = {
            "api_url": web.url, "record_file": str(tmp_path / "page.json"), "run": run, "timeout": 10,
            "owner": "alice", "reason": "health answers 500", "status_request": {},
        }
        return call_module(lb_maintenance, provider="http", state=state, **{**given, **arguments})

    return ask


def test_http_switches_and_reads_back(http_page: Call, facade: Facade, web: Web) -> None:
    result = http_page("enabled", text="Soon")
    assert result["changed"] and result["enabled"] and result["lasting"] is None and result["owner"] == "alice"
    assert ("POST /maintenance-mode", {"message": "Soon"}) in [sent[:2] for sent in web.requests]
    assert not http_page("enabled")["changed"]
    assert http_page("disabled")["enabled"] is False and not facade.on


def test_http_that_answers_200_without_effect_is_found_out(http_page: Call, facade: Facade) -> None:
    facade.idle = True
    result = http_page("enabled", timeout=BRIEFLY)
    assert result["exit_code"] == 20 and "read back" in result["msg"]


def test_http_without_a_status_is_judged_from_outside(http_page: Call, facade: Facade, web: Web) -> None:
    looks = {"status_request": None, "look": [{"url": web.url + "/site"}]}
    assert http_page("enabled", **looks)["enabled"] and not http_page("enabled", **looks)["changed"]
    facade.idle = True
    assert http_page("disabled", **looks, timeout=BRIEFLY)["exit_code"] == 20


def test_http_with_nothing_to_read_back_is_bad_input(http_page: Call, facade: Facade, web: Web) -> None:
    result = http_page("enabled", status_request=None)
    assert result["exit_code"] == 2 and result["msg"].startswith("status_request:") and web.requests == []


def test_http_refusal_is_a_failure(http_page: Call, facade: Facade, web: Web) -> None:
    web.says("POST /maintenance-mode", 500)
    result = http_page("enabled")
    assert result["exit_code"] == 20 and "500" in result["msg"]


def test_http_state_that_is_no_boolean_is_unknown(http_page: Call, facade: Facade, web: Web) -> None:
    web.says("GET /maintenance-mode", 200, {"maintenance": "on"})
    assert http_page("status")["exit_code"] == 30


def test_http_token_comes_from_a_private_file_and_is_not_shown(
    http_page: Call, facade: Facade, web: Web, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret-token\n")
    token.chmod(0o600)
    result = http_page("enabled", token_file=str(token))
    assert web.requests[0][2]["Authorization"] == "Bearer s3cret-token" and "s3cret" not in json.dumps(result)
    token.chmod(0o644)
    assert http_page("status", token_file=str(token))["exit_code"] == 2


def test_http_path_cannot_move_the_token_to_another_host(http_page: Call, web: Web) -> None:
    result = http_page("enabled", enable_request={"path": ".evil.example/x"})
    assert result["exit_code"] == 2 and result["msg"].startswith("enable_request.path:") and web.requests == []


# --- Caddy


class Caddy:
    """The routes of one server of the admin API; `stuck` accepts a DELETE and keeps the route."""

    PATH = "/config/apps/http/servers/srv0/routes"

    def __init__(self, web: Web) -> None:
        self.web = web
        self.routes: list[dict[str, Any]] = [{"handle": [{"handler": "reverse_proxy"}], "terminal": True}]
        self.stuck = False
        web.pages[f"GET {self.PATH}"] = lambda: (200, {}, self.routes)
        web.pages[f"PUT {self.PATH}/0"] = lambda: self.change(lambda route: self.routes.insert(0, route))
        web.pages["PATCH /id/maintenance-mode"] = lambda: self.change(lambda route: self.routes.__setitem__(0, route))
        web.pages["DELETE /id/maintenance-mode"] = self.delete

    def change(self, apply: Callable[[Any], None]) -> tuple[int, dict[str, str], Any]:
        apply(self.web.requests[-1][1])
        return 200, {}, None

    def delete(self) -> tuple[int, dict[str, str], Any]:
        ours = [route for route in self.routes if "@id" in route]
        if not ours:
            return 404, {}, {"error": "unknown object ID"}
        if not self.stuck:
            self.routes.remove(ours[0])
        return 200, {}, None


@pytest.fixture
def caddy(web: Web) -> Caddy:
    return Caddy(web)


@pytest.fixture
def caddy_page(web: Web, run: dict[str, Any], tmp_path: Path, call_module: Call) -> Call:
    def ask(state: str, **arguments: Any) -> dict[str, Any]:
        given = {
            "admin_url": web.url, "server": "srv0", "record_file": str(tmp_path / "page.json"), "run": run,
            "timeout": 10, "owner": "alice", "reason": "health answers 500",
        }
        return call_module(lb_maintenance, provider="caddy", state=state, **{**given, **arguments})

    return ask


def test_caddy_gets_the_page_before_all_routes(caddy_page: Call, caddy: Caddy) -> None:
    result = caddy_page("enabled", text="Soon")
    assert result["changed"] and result["enabled"] and result["text"] == "Soon"
    assert caddy.routes[0]["handle"][0]["status_code"] == 503 and len(caddy.routes) == 2
    assert not caddy_page("enabled", text="Soon")["changed"]
    assert caddy_page("enabled", text="Later")["text"] == "Later" and len(caddy.routes) == 2


def test_caddy_loses_every_copy_of_the_page(caddy_page: Call, caddy: Caddy) -> None:
    caddy_page("enabled")
    caddy.routes.insert(0, caddy.routes[0])
    assert caddy_page("disabled")["enabled"] is False
    assert len(caddy.routes) == 1


def test_caddy_page_behind_another_route_is_not_on(caddy_page: Call, caddy: Caddy) -> None:
    caddy_page("enabled")
    caddy.routes.reverse()
    assert caddy_page("status")["enabled"] is None
    assert caddy_page("enabled")["enabled"] is True


def test_caddy_that_keeps_the_route_is_found_out(caddy_page: Call, caddy: Caddy) -> None:
    caddy_page("enabled")
    caddy.stuck = True
    assert caddy_page("disabled", timeout=BRIEFLY)["exit_code"] == 20


def test_caddy_server_that_is_not_there_is_bad_input(caddy_page: Call, caddy: Caddy) -> None:
    result = caddy_page("enabled", server="srv9")
    assert result["exit_code"] == 2 and result["msg"].startswith("server:")


def test_only_haproxy_drains(caddy_page: Call, caddy: Caddy) -> None:
    assert caddy_page("drained", backend="api")["exit_code"] == 2
