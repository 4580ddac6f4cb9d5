#!/usr/bin/python
# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: redis_sessions
short_description: End sessions that are kept in Redis, and no other key
description:
  - Finds sessions with C(SCAN) and ends them with C(UNLINK), in batches, so that Redis goes on answering.
  - Every key that is ended is named by itself in a command; a pattern is never sent with one.
  - Keys outside the scope are counted and their names digested before and after. Keys may come and go by themselves
    meanwhile, because they expire or their owners work on; RV(others.gone) and RV(others.came) tell them.
  - Sessions in signed cookies (JWT) are not in Redis. Only a new signing secret ends those.
version_added: 0.1.0
author: MarketSage (@marketsage)
requirements:
  - redis
options:
  state:
    description:
      - V(counted) changes nothing.
      - V(ended) removes the sessions in scope.
      - V(flushed) empties the database, other keys included, with C(FLUSHDB). It needs O(other_keys).
    type: str
    default: counted
    choices: [counted, ended, flushed]
  redis_url_file:
    description:
      - File, readable by its owner alone, with the URL of Redis, such as C(redis://:password@host:6379/0).
      - A cluster is refused.
    type: path
    required: true
  pattern:
    description:
      - Names of the sessions' keys; C(*) stands for any text and C(?) for one character.
      - It must begin with a prefix of their own, so that it never matches everything.
    type: str
    default: sess:*
  user:
    description: Only sessions of this user.
    type: str
  user_field:
    description: Where a session's JSON names its user, with dots between levels.
    type: str
    default: user.email
  created_before:
    description:
      - Only sessions created before this time, ISO 8601 with its zone.
      - Redis does not know a key's age, so one of O(created_field) and O(lifetime) is needed.
    type: str
  created_field:
    description:
      - Where a session's JSON tells when it was created, with dots between levels.
      - ISO 8601 with its zone, or seconds or milliseconds since 1970.
    type: str
  lifetime:
    description:
      - Seconds a session lives. What is left of them tells when its lifetime began.
      - A session without an expiry, or with more left than this, counts as unknown.
    type: int
  lifetime_renewed:
    description:
      - Whether each use of a session renews its lifetime, as connect-redis does unless C(disableTouch) is set.
      - If so, a session used since O(created_before) counts as unknown. If not, it is known to be newer.
    type: bool
    default: true
  unknown:
    description: What becomes of sessions of which O(user) or O(created_before) cannot be decided.
    type: str
    default: keep
    choices: [keep, end]
  other_keys:
    description:
      - How many keys beside those that match O(pattern) die with O(state=flushed).
      - It must equal what is found. A flush of the same O(run) that was interrupted goes on with fewer.
    type: int
  timeout:
    description: Seconds for the whole work.
    type: int
    default: 60
attributes:
  check_mode:
    description: Counts what would be ended.
    support: full
  diff_mode:
    description: Shows the number of sessions and of other keys.
    support: full
extends_documentation_fragment:
  - marketsage.rollback.run
"""

EXAMPLES = r"""
- name: Count sessions by kind of key
  marketsage.rollback.redis_sessions:
    redis_url_file: /etc/rollback/redis_url

- name: End the sessions that the broken release made
  marketsage.rollback.redis_sessions:
    state: ended
    redis_url_file: /etc/rollback/redis_url
    created_before: "2026-11-24T03:15:00Z"
    lifetime: 3600
    unknown: end
    run: "{{ rollback_run }}"

- name: End the sessions of one user
  marketsage.rollback.redis_sessions:
    state: ended
    redis_url_file: /etc/rollback/redis_url
    user: dana@example.com
    run: "{{ rollback_run }}"
"""

RETURN = r"""
sessions:
  description: The sessions in scope, those of RV(unknown) included where O(unknown=end).
  returned: success
  type: dict
  contains:
    count:
      description: How many.
      type: int
    kinds:
      description: How many of each kind, by what their names have before the first colon.
      type: dict
    digest:
      description: SHA-256 of the sorted names.
      type: str
unknown:
  description: Sessions that match O(pattern), of which it cannot be known whether they are in scope.
  returned: success
  type: dict
  contains:
    count:
      description: How many.
      type: int
    kinds:
      description: How many of each kind.
      type: dict
    digest:
      description: SHA-256 of the sorted names.
      type: str
others:
  description: All other keys, sessions outside the scope included.
  returned: success
  type: dict
  contains:
    before:
      description: C(count), C(kinds) and C(digest) before anything was done.
      type: dict
    after:
      description: The same afterwards.
      type: dict
    same:
      description: Whether the names are the same.
      type: bool
    gone:
      description: Keys that went, with at most twenty C(names). No command named them; C(FLUSHDB) takes them all.
      type: dict
    came:
      description: Keys that came meanwhile.
      type: dict
left:
  description: How many sessions in scope there are afterwards; in check mode, how many there are.
  returned: success
  type: int
exit_code:
  description: The exit code that a run ends with because of this failure.
  returned: failure
  type: int
advice:
  description: What to do next.
  returned: failure
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.marketsage.rollback.plugins.module_utils import sessions, validate
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Held, Refused, finish
from ansible_collections.marketsage.rollback.plugins.module_utils.files import read_secret
from ansible_collections.marketsage.rollback.plugins.module_utils.run import RUN_ARGUMENT, Run

ARGUMENTS = {
    "state": {"type": "str", "default": "counted", "choices": ["counted", "ended", "flushed"]},
    "redis_url_file": {"type": "path", "required": True},
    "pattern": {"type": "str", "default": "sess:*"},
    "user": {"type": "str"},
    "user_field": {"type": "str", "default": "user.email"},
    "created_before": {"type": "str"},
    "created_field": {"type": "str"},
    "lifetime": {"type": "int"},
    "lifetime_renewed": {"type": "bool", "default": True},
    "unknown": {"type": "str", "default": "keep", "choices": ["keep", "end"]},
    "other_keys": {"type": "int", "no_log": False},
    "timeout": {"type": "int", "default": 60},
    "run": RUN_ARGUMENT,
}


def scope_of(parameters: dict[str, Any]) -> sessions.Scope:
    if parameters["lifetime"] is not None:
        validate.positive(parameters["lifetime"], "lifetime")
    if parameters["user"] is not None and not parameters["user"].strip():
        raise BadInput("user: it is empty; leave it out to mean every user")
    scope = sessions.Scope(parameters)
    if parameters["state"] == "flushed" and scope.narrowed:
        raise BadInput("state: flushed takes everything; user and created_before do not go with it")
    return scope


def end(store: sessions.Store, names: set[bytes], scope: sessions.Scope, run: Run) -> set[bytes]:
    """End these sessions and return the keys that are left."""
    intent = {"pattern": scope.pattern, "user": scope.user, "created_before": scope.created_before, "count": len(names)}
    with run.change("sessions_ended", intent) as change:
        remaining = store.end(names)
        change.outcome = {"ended": len(names), "keys": len(remaining)}
    return remaining


def flush(store: sessions.Store, found: sessions.Found, run: Run) -> set[bytes]:
    """Empty the database and return the keys that are there afterwards."""
    before = found.in_scope | found.others
    with run.change("redis_flushed", {"sessions": len(found.in_scope), "other_keys": len(found.others)}) as change:
        store.flush()
        remaining = store.names()
        if before <= remaining:
            raise Held("after FLUSHDB every key is still there")
        change.outcome = {"keys": len(remaining)}
    return remaining


def check_announced(announced: int, others: set[bytes], run: dict[str, Any] | None) -> None:
    found = len(others)
    if announced == found or (found < announced and run and Run.of(run).has_begun("redis_flushed")):
        return
    kinds = ", ".join(f"{kind} {count}" for kind, count in sessions.kinds(others).items())
    raise Refused(
        f"other_keys: {found} keys beside the sessions would die ({kinds}), not {announced}",
        f"Say other_keys: {found} if they all may go, or use state: ended.",
    )


def act(module: AnsibleModule, store: sessions.Store, scope: sessions.Scope) -> dict[str, Any]:
    parameters = module.params
    found = store.find(scope)
    doomed = found.in_scope | (found.unknown if parameters["unknown"] == "end" else set())
    others = (found.others | found.unknown) - doomed
    remaining, kept = doomed | others, others
    if parameters["state"] == "flushed":
        check_announced(parameters["other_keys"], others, parameters["run"])
        kept = set()
    changed = parameters["state"] != "counted" and bool(doomed or kept != others)
    if changed and not module.check_mode:
        run = Run.of(parameters["run"])
        flushed = parameters["state"] == "flushed"
        remaining = flush(store, found, run) if flushed else end(store, doomed, scope, run)
    after = {"sessions": len(doomed & remaining), "others": len(remaining - doomed)}
    if changed and module.check_mode:
        after = {"sessions": 0, "others": len(kept)}
    return {
        "changed": changed,
        "sessions": sessions.summary(doomed),
        "unknown": sessions.summary(found.unknown),
        "others": sessions.movement(others, remaining - doomed),
        "left": len(doomed & remaining),
        "diff": {"before": {"sessions": len(doomed), "others": len(others)}, "after": after},
    }


def work(module: AnsibleModule) -> dict[str, Any]:
    parameters = module.params
    scope = scope_of(parameters)
    url = read_secret(validate.absolute_path(parameters["redis_url_file"], "redis_url_file"), "redis_url_file")
    with sessions.store(url, validate.positive(parameters["timeout"], "timeout")) as store:
        return act(module, store, scope)


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        mutually_exclusive=[("created_field", "lifetime")],
        required_if=[("state", "flushed", ("other_keys",))],
        supports_check_mode=True,
    )
    finish(module, work)


if __name__ == "__main__":
    main()
