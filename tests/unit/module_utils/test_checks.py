"""Checks made on a real HTTP server on the loopback interface, one that obeys and one that lies."""
from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils import checks
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput


class Service(BaseHTTPRequestHandler):
    """A service whose answers are data: "METHOD path" -> list of (status, JSON), the last one repeated."""

    answers: dict[str, list[tuple[int, Any]]]
    asked: list[str]
    bodies: list[bytes]

    def answer(self) -> None:
        key = f"{self.command} {self.path}"
        type(self).asked.append(key)
        type(self).bodies.append(self.rfile.read(int(self.headers.get("content-length", 0))))
        waiting = type(self).answers.get(key, [(404, {})])
        status, body = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Any]:
    handler = type("Handler", (Service,), {"answers": {}, "asked": [], "bodies": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    handler.url = f"http://127.0.0.1:{server.server_port}"
    yield handler
    server.shutdown()
    server.server_close()


def request(url: str, **values: Any) -> dict[str, Any]:
    defaults = {"method": "GET", "headers": {}, "json": None, "status": [200], "contains": None}
    return {**defaults, "equals": {}, "save": {}, "url": url, **values}


def check(*requests: Any, **values: Any) -> dict[str, Any]:
    return {"name": "a check", "required": True, "timeout": 5.0, "requests": list(requests), "cleanup": [], **values}


def test_a_right_answer_passes_with_evidence(service: Any) -> None:
    service.answers = {"GET /health": [(200, {"release": "abc", "ok": True})]}
    result = checks.run_check(
        check(request(f"{service.url}/health", contains="abc", equals={"release": "abc", "ok": True})), {}
    )
    assert (result["status"], result["evidence"]) == ("passed", f"GET {service.url}/health answered 200")


@pytest.mark.parametrize(
    ("answer", "wanted", "said"),
    [
        ((503, {}), {}, "answered 503, expected 200"),
        ((200, {"release": "old"}), {"equals": {"release": "new"}}, "says release is 'old', expected 'new'"),
        ((200, {}), {"contains": "MarketSage"}, "without 'MarketSage'"),
        ((200, ["no object"]), {"equals": {"release": "new"}}, "no JSON object"),
        ((200, {}), {"save": {"id": "id"}}, "without 'id'"),
    ],
)
def test_a_wrong_answer_fails_and_says_what_was_wrong(service: Any, answer: Any, wanted: Any, said: str) -> None:
    service.answers = {"GET /health": [answer]}
    result = checks.run_check(check(request(f"{service.url}/health", **wanted)), {})
    assert result["status"] == "failed"
    assert said in result["evidence"]


def test_nobody_listening_is_a_failure() -> None:
    result = checks.run_check(check(request("http://127.0.0.1:9/")), {})
    assert result["status"] == "failed"


def test_a_saved_value_is_used_and_the_probe_is_removed_even_when_a_later_request_fails(service: Any) -> None:
    service.answers = {"POST /c": [(201, {"id": 7})], "GET /c/7": [(500, {})], "DELETE /c/7": [(200, {})]}
    result = checks.run_check(
        check(
            request(f"{service.url}/c", method="POST", status=[201], save={"id": "id"}),
            request(f"{service.url}/c/<id>"),
            cleanup=[request(f"{service.url}/c/<id>", method="DELETE")],
        ),
        {},
    )
    assert result["status"] == "failed"
    assert service.asked == ["POST /c", "GET /c/7", "DELETE /c/7"]


def test_each_round_has_a_word_of_its_own(service: Any) -> None:
    for _round in range(2):
        checks.run_check(check(request(f"{service.url}/<unique>")), {})
    first, second = service.asked
    assert first != second
    assert "<unique>" not in first


def test_a_probe_that_stays_behind_is_a_failure(service: Any) -> None:
    service.answers = {"POST /c": [(201, {"id": 7})], "DELETE /c/7": [(500, {})]}
    result = checks.run_check(
        check(
            request(f"{service.url}/c", method="POST", status=[201], save={"id": "id"}),
            cleanup=[request(f"{service.url}/c/<id>", method="DELETE")],
        ),
        {},
    )
    assert result["status"] == "failed"
    assert "clean-up" in result["evidence"]


def test_a_secret_is_sent_and_never_shown(service: Any) -> None:
    service.answers = {"GET /s3cret": [(500, {})]}
    result = checks.run_check(check(request(f"{service.url}/<password>")), {"password": "s3cret"})
    assert service.asked == ["GET /s3cret"]
    assert "s3cret" not in json.dumps(result)


def test_a_secret_is_sent_wherever_the_body_has_its_name(service: Any) -> None:
    service.answers = {"POST /login": [(200, {})]}
    body = {"user": {"password": "<password>"}, "factors": [{"otp": "<password>"}, "<password>", 6]}
    result = checks.run_check(check(request(f"{service.url}/login", method="POST", json=body)), {"password": "s3cret"})
    assert result["status"] == "passed"
    [sent] = service.bodies
    assert json.loads(sent) == {"user": {"password": "s3cret"}, "factors": [{"otp": "s3cret"}, "s3cret", 6]}


def test_a_secret_in_an_address_that_cannot_be_reached_is_not_shown() -> None:
    result = checks.run_check(check(request("http://127.0.0.1:9/<password>")), {"password": "s3cret"})
    assert "/<password>" in result["evidence"]


def test_the_gate_counts_passes_in_a_row(service: Any) -> None:
    service.answers = {"GET /health": [(200, {}), (500, {}), (200, {}), (200, {}), (200, {})]}
    in_a_row, results = checks.gate([check(request(f"{service.url}/health"))], {}, 3, 0.01, Deadline(10))
    assert (in_a_row, len(service.asked)) == (3, 5)
    assert results[0]["status"] == "passed"


def test_a_look_ends_at_the_first_failure(service: Any) -> None:
    service.answers = {"GET /health": [(200, {}), (500, {}), (200, {}), (200, {}), (200, {})]}
    asked = [check(request(f"{service.url}/health"))]
    in_a_row, results = checks.gate(asked, {}, 3, 0.01, Deadline(10), failure_ends=True)
    assert (in_a_row, len(service.asked), results[0]["status"]) == (0, 2, "failed")


def test_the_gate_gives_up_at_its_deadline(service: Any) -> None:
    service.answers = {"GET /health": [(500, {})]}
    in_a_row, results = checks.gate([check(request(f"{service.url}/health"))], {}, 3, 0.01, Deadline(0.1))
    assert (in_a_row, results[0]["status"]) == (0, "failed")


def test_nothing_checked_or_nothing_required_is_no_pass(service: Any) -> None:
    assert not checks.passed([])
    service.answers = {"GET /health": [(200, {})]}
    assert not checks.passed(checks.run_checks([check(request(f"{service.url}/health"), required=False)], {}))


ADDRESSES = {"api": {"url": "http://127.0.0.1:9", "headers": {"Host": "api.example.com", "X-By": "address"}}, "app": {}}


def test_a_url_begins_at_a_named_address_whose_headers_are_sent_too() -> None:
    asked = request("<api>/v2/<id>", headers={"X-By": "request"})
    login = {"url": "<api>/login", "headers": {}}
    found = checks.located(check(asked, cleanup=[request("<api>/v2/<id>")], session=login), ADDRESSES)
    sent = {"Host": "api.example.com", "X-By": "request"}
    assert (found["requests"][0]["url"], found["requests"][0]["headers"]) == ("http://127.0.0.1:9/v2/<id>", sent)
    assert found["cleanup"][0]["headers"] == ADDRESSES["api"]["headers"]
    assert found["session"] == {"url": "http://127.0.0.1:9/login", "headers": ADDRESSES["api"]["headers"]}


def test_a_whole_url_stays_as_it_is() -> None:
    asked = check(request("http://127.0.0.1:9/<unique>"))
    assert checks.located(asked, ADDRESSES) == asked


@pytest.mark.parametrize(
    "asked",
    [
        request("http://127.0.0.1:9/<id>"),
        request("<api>/contacts/<id>"),
        request("<api>/", headers={"Authorization": "Bearer <id>"}),
        request("<api>/", json={"ids": [{"id": "<id>"}]}),
    ],
)
def test_a_name_that_nothing_gives_is_bad_input(asked: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="checks: 'a check' uses <id>, which is none of secret_files and is not saved"):
        checks.refuse_unknown_names(check(asked), ["password"])
    checks.refuse_unknown_names(check(asked), ["id"])
    checks.refuse_unknown_names(check(request("<api>/", save={"id": "id"}), asked), [])
    checks.refuse_unknown_names(check(request("<api>/", save={"id": "id"}), cleanup=[asked]), [])


@pytest.mark.parametrize(
    "asked",
    [
        {"session": {"url": "<api>/login", "json": {"password": "<id>"}}},
        {"browser": {"steps": [{"open": "http://127.0.0.1:9"}, {"fill": "input", "value": "<id>"}]}},
    ],
)
def test_so_it_is_in_a_login_and_in_a_browser(asked: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="uses <id>"):
        checks.refuse_unknown_names(check(**asked), ["password"])
    checks.refuse_unknown_names(check(**asked), ["id"])


def test_what_only_looks_like_a_name_is_none() -> None:
    asked = request("<api>/<unique>", json={"email": "<unique>@probe.invalid", "note": "<b>bold</b>"})
    checks.refuse_unknown_names(check(asked), [])


@pytest.mark.parametrize("name", ["app", "admin", "words"])
def test_an_address_that_nothing_names_is_bad_input(name: str) -> None:
    with pytest.raises(BadInput, match=f"addresses: <{name}>/ is asked, but addresses.{name}.url does not say"):
        checks.located(check(request(f"<{name}>/")), {**ADDRESSES, "words": "http://127.0.0.1:9"})
