"""asset_skew against pages that change under it."""
from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml
from ansible_collections.marketsage.rollback.plugins.modules import asset_skew as module

Call = Callable[..., dict[str, Any]]
OLD = '<script src="/_next/static/chunks/a1.js?dpl=1"></script><link href="/_next/static/b.css">"/_next/static/c.js\\"'


class Site(BaseHTTPRequestHandler):
    """Answers what its server has; None closes the connection without an answer."""

    def do_GET(self) -> None:
        status, body = self.server.has.get(self.path.partition("?")[0], (404, ""))  # type: ignore[attr-defined]
        if status is None:
            self.connection.close()
            return
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.has = {"/": (200, OLD)}  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def call(site: ThreadingHTTPServer, call_module: Call, run: dict[str, Any]) -> Call:
    pages = [{"url": f"http://127.0.0.1:{site.server_address[1]}/"}]
    return lambda state, **more: call_module(module, state=state, **{"pages": pages, "run": run, **more})


def test_what_was_remembered_first_is_asked_for_again(site: Any, call: Call) -> None:
    paths = ["/_next/static/b.css", "/_next/static/c.js", "/_next/static/chunks/a1.js"]
    assert call("remembered")["assets"] == paths
    site.has = {"/": (200, '"/_next/static/new.js"'), paths[0]: (200, ""), paths[1]: (None, "")}
    assert call("remembered")["assets"] == paths
    asked = call("asked", counters={"assets not found": "x"})
    assert (asked["gone"], asked["unknown"], asked["counted"]) == ([paths[2]], [paths[1]], {"assets not found": None})
    assert asked["note"] == (
        "tabs opened before miss 1 of 3 assets until they are loaded again, 1 could not be asked; "
        "since then assets not found: unknown"
    )


@pytest.mark.parametrize(("before", "now", "grown"), [(3, 7, 4), (None, 7, 7), (9, 2, 2), (3, None, None)])
def test_a_counter_is_told_by_how_much_it_has_grown(
    call: Call, monkeypatch: pytest.MonkeyPatch, before: float | None, now: float | None, grown: int | None
) -> None:
    def instant(_url: str, _query: str, at: float | None = None) -> list[module.prometheus.Sample]:
        value = now if at is None else before
        return [] if value is None else [module.prometheus.Sample({}, 0.0, value)]

    monkeypatch.setattr(module.prometheus, "instant", instant)
    call("remembered")
    asked = call("asked", prometheus_url="http://127.0.0.1:9090", counters={"refused": "x"})
    assert asked["counted"] == {"refused": grown}


def test_without_a_memory_it_is_unknown_and_check_mode_keeps_none(site: Any, call: Call) -> None:
    assert len(call("remembered", check=True)["assets"]) == 3
    assert call("asked")["exit_code"] == 30
    site.has = {}
    assert "answered 404" in call("remembered")["msg"]


def test_the_documented_keys_are_the_returned_ones(call: Call) -> None:
    call("remembered")
    documented = set(yaml.safe_load(module.RETURN)) - {"exit_code", "advice"}
    returned = json.loads(json.dumps(call("asked")))
    assert set(returned) - {"changed", "invocation"} == documented
