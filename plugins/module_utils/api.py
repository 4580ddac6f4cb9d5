# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The one door to HTTP: https (http for loopback alone), verified, no redirects, a deadline, a size cap."""
from __future__ import annotations

import errno
import http.client
import json as json_format
import re
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from functools import lru_cache
from time import sleep
from typing import Any, Callable
from urllib.parse import urlencode, urlsplit

from ansible_collections.marketsage.rollback.plugins.module_utils import validate
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, RollbackError

SIZE_LIMIT = 8 * 1024 * 1024
_ATTEMPTS = 5
_ATTEMPT_SECONDS = 30.0
_RETRY_SECONDS = 1.0
_BUSY = (429, 502, 503, 504)
_UNREACHABLE = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH)


class ConnectionFailed(RollbackError):
    """No answer came. `maybe_applied` is False only when the request cannot have reached the server."""

    def __init__(self, message: str, maybe_applied: bool) -> None:
        super().__init__(message)
        self.maybe_applied = maybe_applied


class UnexpectedStatus(RollbackError):
    """The server answered, but not with a status that was expected."""

    def __init__(self, message: str, response: Response) -> None:
        super().__init__(message)
        self.response = response


class BadAnswer(RollbackError):
    """The server answered with something that cannot be used: too large, or no JSON."""


@dataclass(frozen=True)
class Response:
    """An answer; the names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    source: str = ""

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        try:
            return json_format.loads(self.body)
        except ValueError:
            raise BadAnswer(f"{self.source} answered {self.status} with something that is not JSON") from None

    def retry_after(self) -> float:
        """The seconds the server asks to wait; 0 where it does not say, or says it as a date."""
        value = self.headers.get("retry-after", "")
        return float(value) if re.fullmatch(r"\d{1,6}(\.\d+)?", value, re.ASCII) else 0.0


def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    json: Any = None,
    form: Mapping[str, str] | None = None,
    timeout: float,
    expect: tuple[int, ...] = (200,),
    named: str = "",
) -> Response:
    """Send one request once and return the answer, if its status is among `expect`, within `timeout` seconds.

    The body is `json` or `form`. Where the address itself is a secret, messages call it `named`.
    """
    validate.url(url, "url")
    source = named or _source(method, url)
    _check_headers(headers or {})
    kind, data = _body(json, form)
    sent = {"Accept": "application/json", "User-Agent": "marketsage.rollback", **kind, **(headers or {})}
    wanted = urllib.request.Request(url, data, sent, method=method)
    try:
        response = _within(timeout, lambda: _send(wanted, timeout, source))
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionFailed(f"{source}: {_reason(error)}", _may_have_arrived(error)) from None
    if response.status not in expect:
        raise UnexpectedStatus(f"{source} answered {response.status}", response)
    return response


def request_until_answered(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    json: Any = None,
    deadline: Deadline,
    changes: bool,
) -> Response:
    """Send a request, and again while the server is busy or away; one that `changes` only if it was not applied."""
    for attempt in range(_ATTEMPTS):
        timeout = min(_ATTEMPT_SECONDS, max(deadline.left(), _RETRY_SECONDS))
        try:
            return request(method, url, headers=headers, json=json, timeout=timeout)
        except ConnectionFailed as error:
            failure: RollbackError = error
            again, wait = not (changes and error.maybe_applied), 0.0
        except UnexpectedStatus as error:
            failure = error
            again, wait = _may_repeat(error.response, changes), error.response.retry_after()
        wait = max(wait, _RETRY_SECONDS * 2**attempt)
        if not again or wait >= deadline.left():
            break
        sleep(wait)
    raise failure


def _may_repeat(response: Response, changes: bool) -> bool:
    """A request refused for its rate was not applied; other refusals may come from a gateway on the way."""
    return response.status == 429 if changes else response.status in _BUSY


def _body(json: Any, form: Mapping[str, str] | None) -> tuple[dict[str, str], bytes | None]:
    """The header that says what a body is, and the body."""
    if form is not None:
        return {"Content-Type": "application/x-www-form-urlencoded"}, urlencode(form).encode()
    if json is not None:
        return {"Content-Type": "application/json"}, json_format.dumps(json).encode()
    return {}, None


def _send(wanted: urllib.request.Request, timeout: float, source: str) -> Response:
    try:
        answer = _opener(wanted.type).open(wanted, timeout=timeout)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        body = answer.read(SIZE_LIMIT + 1)
    if len(body) > SIZE_LIMIT:
        raise BadAnswer(f"{source} answered with more than {SIZE_LIMIT} bytes")
    return Response(answer.code, {name.lower(): value for name, value in answer.headers.items()}, body, source)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What a token was sent for may answer elsewhere; the token stays here."""

    def redirect_request(self, *_arguments: Any) -> None:
        return None


@lru_cache(maxsize=None)
def _opener(scheme: str) -> urllib.request.OpenerDirector:
    """What opens URLs of a scheme. Certificates are loaded once, and only where they are needed: that takes long."""
    # A proxy from the environment would be shown a token that is for the server alone.
    handlers: list[Any] = [urllib.request.ProxyHandler({}), _NoRedirect]
    if scheme == "https":
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    return urllib.request.build_opener(*handlers)


def _within(seconds: float, work: Callable[[], Response]) -> Response:
    """What `work` returns or raises; a socket's own time-out starts again with every byte and knows no DNS."""
    result: Future[Response] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except Exception as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return result.result(timeout=seconds)
    except FutureTimeout:
        raise socket.timeout(f"no answer within {seconds:g} s") from None


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", None) or error
    return str(cause) or type(cause).__name__


def _may_have_arrived(error: Exception) -> bool:
    cause = getattr(error, "reason", None)
    if isinstance(cause, (socket.gaierror, ssl.SSLError)):
        return False
    return getattr(cause, "errno", None) not in _UNREACHABLE


def _check_headers(headers: Mapping[str, str]) -> None:
    # http.client would quote the value, which may be a token, in its own error.
    for name, value in headers.items():
        if not re.fullmatch(r"[\x20-\x7e]*", value):
            raise BadInput(f"the value of the header {name} has characters that a header cannot have")


def _source(method: str, url: str) -> str:
    """What an answer came from, as messages name it; a query may hold what is not for messages."""
    parts = urlsplit(url)
    return f"{method} {parts.scheme}://{parts.netloc}{parts.path}"
