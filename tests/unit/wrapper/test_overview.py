from __future__ import annotations

from ansible_collections.marketsage.rollback.wrapper import overview


def test_who_gets_no_requests_is_shown_with_the_reason() -> None:
    states = {"api-1": ("ready", "running"), "api-2": ("drain", "running"), "api-3": ("ready", "stopped")}
    servers = {
        name: {"name": name, "admin": admin, "operational": operational}
        for name, (admin, operational) in states.items()
    }
    assert overview.out_of_rotation({"servers": servers}) == ["api-2 (drain)", "api-3 (stopped)"]
    assert overview.out_of_rotation({"enabled": None, "msg": "unreachable"}) == []
