#!/usr/bin/python
# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: List, build, switch and mark the releases of a service
version_added: 0.1.0
author: MarketSage (@marketsage)
description:
  - A release is an immutable build of one commit in C(releases/<id>/), whose C(release.json) says what it is. Its id is
    the first 12 hexadecimal digits of the commit.
  - V(listed) reads what is built, what is live, what was live before, and which releases one could go back to.
  - V(built) makes a release from a bare repository where this host has no complete one yet. The commands run in a fresh
    working tree beside the releases; what failed or was killed is never seen among them.
  - V(live) points the link C(current) at a release by one atomic rename, and adds a line to C(revisions.jsonl).
  - V(marked) notes on the control host that a release is known to be good or bad. It needs no O(run).
options:
  state:
    description: What is wanted.
    type: str
    choices: [listed, built, live, marked]
    default: listed
  root:
    description: The directory with C(releases/), C(current) and C(revisions.jsonl).
    type: path
  required:
    description: Paths that a complete release has, relative to it, such as V(dist/main.js).
    type: list
    elements: str
    default: []
  release:
    description: The id of the release to make live.
    type: str
  commit:
    description: The full commit to build or to mark.
    type: str
  ref:
    description: What to build, where no commit was pinned. A tag, a branch, or a release's id; no expression.
    type: str
  repository:
    description:
      - The bare repository to build from.
      - With O(state=listed) it tells which commits each candidate leaves behind.
    type: path
  build:
    description: The commands that make the release, each a list of words. No shell reads them.
    type: list
    elements: list
    default: []
  dependencies:
    description:
      - What the release needs before O(build). It is taken from a complete release here that has the very same lock
        file, and installed where there is none.
    type: dict
    suboptions:
      lock:
        description: The file that names every dependency, such as V(package-lock.json).
        type: str
        required: true
      directory:
        description: The directory that holds them, such as V(node_modules).
        type: str
        required: true
      install:
        description: The command that installs them, a list of words.
        type: list
        elements: str
        required: true
  environment:
    description: Variables for git and for the commands, beside PATH, HOME, USER and LANG of the module itself.
    type: dict
    default: {}
  timeout:
    description: Seconds after which a build is killed.
    type: int
    default: 600
  secret_files:
    description:
      - Private files that later steps read on this host, by name. With O(state=listed) it is told which of them cannot
        be read.
    type: dict
    default: {}
  marks_file:
    description: The file on the control host that holds the marks.
    type: path
  service:
    description: The service whose release is marked.
    type: str
  mark:
    description: What is known of the release.
    type: str
    choices: [good, bad]
  by:
    description: Who says so.
    type: str
  reason:
    description: Why, in one line.
    type: str
attributes:
  check_mode:
    description: Says what would be built, switched or marked. A ref is resolved, nothing is built.
    support: full
  diff_mode:
    description: Shows the live release, the presence of the build, or the mark, before and after.
    support: full
  platform:
    description: Needs symbolic links that are replaced atomically.
    platforms: posix
    support: full
extends_documentation_fragment:
  - marketsage.rollback.run
"""

EXAMPLES = r"""
- name: Read the releases of this host
  marketsage.rollback.release:
    root: /srv/backend
    required: [dist/main.js]

- name: Build a release where this host has no build of it
  marketsage.rollback.release:
    state: built
    root: /srv/backend
    commit: 3f0c8f0f3a1d5c1d6b4c2f0f4e1f6a7b8c9d0e1f
    repository: /srv/backend/repository.git
    build:
      - [npm, ci]
      - [npm, run, build]
    required: [dist/main.js]
    run: "{{ rollback_run }}"

- name: Switch to it
  marketsage.rollback.release:
    state: live
    root: /srv/backend
    release: 3f0c8f0f3a1d
    run: "{{ rollback_run }}"

- name: Never choose the broken release again
  marketsage.rollback.release:
    state: marked
    marks_file: /var/lib/marketsage/control/marks.json
    service: backend
    commit: 9a0c8f0f3a1d5c1d6b4c2f0f4e1f6a7b8c9d0e1f
    mark: bad
    by: dana
    reason: health answers 500
  delegate_to: control
"""

RETURN = r"""
live:
  description: The live release; null where C(current) leads to none.
  returned: O(state=listed) or O(state=live)
  type: dict
  contains:
    release:
      description: The id.
      type: str
    commit:
      description: The commit; null where it is not known.
      type: str
    ref:
      description: The tag or branch it was built from; null where it is not known.
      type: str
    since:
      description: When it became live; null where the record does not say so.
      type: str
host:
  description:
    - The host's clock (C(time), seconds since 1970), the bytes that are free where O(root) is (C(free)), and why those
      of O(secret_files) that cannot be read cannot (C(unreadable)).
  returned: O(state=listed)
  type: dict
releases:
  description: The directories under C(releases/), sorted by name.
  returned: O(state=listed)
  type: list
  elements: dict
  contains:
    release:
      description: The name of the directory.
      type: str
    commit:
      description: The commit; null where C(release.json) does not say.
      type: str
    ref:
      description: The tag or branch; null where C(release.json) does not say.
      type: str
    built_at:
      description: When it was built; null where C(release.json) does not say.
      type: str
    problem:
      description: Why it cannot run; null where it is complete.
      type: str
history:
  description: The readable lines of C(revisions.jsonl), newest first.
  returned: O(state=listed)
  type: list
  elements: dict
candidates:
  description: Releases that were live before and are not now, one for each commit, the one that was live last first.
  returned: O(state=listed)
  type: list
  elements: dict
  contains:
    release:
      description: The id.
      type: str
    commit:
      description: The commit.
      type: str
    ref:
      description: The tag or branch.
      type: str
    live_at:
      description: When it last became live.
      type: str
    built:
      description: Whether a complete build of it is on this host.
      type: bool
    leaves:
      description:
        - The commits that are live and are not in it, newest first, 50 at most, each with C(commit), C(author) and
          C(subject). null where git cannot tell. Only with O(repository).
      type: list
      elements: dict
problems:
  description: What of the record is missing, damaged or contradicts the link. With any, candidates may be missing.
  returned: O(state=listed)
  type: list
  elements: str
switched:
  description: Whether the link was moved, or would be in check mode.
  returned: O(state=live)
  type: bool
recorded:
  description: Whether a line was added to C(revisions.jsonl), or would be in check mode.
  returned: O(state=live)
  type: bool
release:
  description: The id of the release that was asked for.
  returned: O(state=built)
  type: str
commit:
  description: The commit that was built, was found built, or was marked.
  returned: O(state=built) or O(state=marked)
  type: str
mark:
  description: What is known of the release.
  returned: O(state=marked)
  type: dict
exit_code:
  description: The exit code that a run ends with because of this failure.
  returned: failure
  type: int
advice:
  description: What to do next.
  returned: failure
  type: str
"""

import os
import shutil
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.marketsage.rollback.plugins.module_utils import errors, marks, validate
from ansible_collections.marketsage.rollback.plugins.module_utils.command import with_variables, words
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.files import unreadable
from ansible_collections.marketsage.rollback.plugins.module_utils.releases import (
    ID_LENGTH,
    Dependencies,
    Recipe,
    Releases,
    Repository,
    build,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.run import RUN_ARGUMENT, Run


def releases_of(parameters: dict[str, Any]) -> Releases:
    root = _existing_directory(parameters["root"], "root")
    _existing_directory(os.path.join(root, "releases"), "root")
    for path in parameters["required"]:
        validate.relative_path(path, "required")
    return Releases(root, parameters["required"])


def _existing_directory(path: str, name: str) -> str:
    if not os.path.isdir(validate.absolute_path(path, name)):
        raise errors.BadInput(f"{name}: there is no directory {path}")
    return path


def listed(module: AnsibleModule) -> dict[str, Any]:
    releases = releases_of(module.params)
    history = releases.history()
    candidates = releases.candidates(history)
    live = releases.about_live(history)
    if module.params["repository"] and live and live["commit"]:
        tell_what_is_left(module.params, live["commit"], candidates)
    return {
        "changed": False,
        "host": {
            "time": int(time.time()),
            "free": shutil.disk_usage(releases.root).free,
            "unreadable": unreadable(module.params["secret_files"], "secret_files"),
        },
        "live": live,
        "releases": releases.built(),
        "history": history.entries,
        "candidates": candidates,
        "problems": history.problems,
    }


def tell_what_is_left(parameters: dict[str, Any], live: str, candidates: list[dict[str, Any]]) -> None:
    """Add to each candidate the commits that live has and it has not."""
    deadline = Deadline(validate.positive(parameters["timeout"], "timeout"))
    path = validate.absolute_path(parameters["repository"], "repository")
    repository = Repository(path, with_variables(parameters["environment"]), deadline)
    for candidate in candidates:
        candidate["leaves"] = repository.log(candidate["commit"], live)


def live(module: AnsibleModule) -> dict[str, Any]:
    releases = releases_of(module.params)
    release = validate.release_id(module.params["release"])
    releases.check_switchable(release)
    before = releases.live()
    # Killed between the two, the link has moved and the record has not: only that is left to do.
    switch, record = before != release, releases.newest_record() != release
    if (switch or record) and not module.check_mode:
        make_live(releases, release, switch, Run.of(module.params["run"]))
    return {
        "changed": switch or record,
        "switched": switch,
        "recorded": record,
        "live": releases.about_live(releases.history()),
        "diff": {"before": {"live": before}, "after": {"live": release}},
    }


def make_live(releases: Releases, release: str, switch: bool, run: Run) -> None:
    """Move the link where it has to be moved, write that down, and read both back."""
    with run.change("release_live", {"root": releases.root, "from": releases.live(), "to": release}) as change:
        if switch:
            releases.switch(release)
        releases.record(release, run.id)
        seen = {"live": releases.live(), "recorded": releases.newest_record()}
        if set(seen.values()) != {release}:
            raise errors.Held(f"{releases.root}: after the switch to {release} this was read back: {seen}")
        change.outcome = seen


def built(module: AnsibleModule) -> dict[str, Any]:
    parameters = module.params
    releases = releases_of(parameters)
    recipe = recipe_of(parameters)
    repository = Repository(_existing_directory(parameters["repository"], "repository"), recipe.environment,
                            recipe.deadline)
    commit = pinned_commit(parameters, repository)
    release = commit[:ID_LENGTH]
    present = releases.problem(release) is None
    if not present and os.path.exists(releases.path(release)):
        raise errors.Refused(f"release: {releases.problem(release)}", "Look at it, move it away, and run this again.")
    if not present and not module.check_mode:
        with Run.of(parameters["run"]).change("release_built", {"root": releases.root, "commit": commit}) as change:
            build(releases, repository, commit, recipe)
            change.outcome = {"release": release}
    return {
        "changed": not present,
        "release": release,
        "commit": commit,
        "diff": {"before": {"built": present}, "after": {"built": True}},
    }


def recipe_of(parameters: dict[str, Any]) -> Recipe:
    commands = [words(command, "build") for command in parameters["build"]]
    deadline = Deadline(validate.positive(parameters["timeout"], "timeout"))
    return Recipe(commands, with_variables(parameters["environment"]), deadline, dependencies_of(parameters))


def dependencies_of(parameters: dict[str, Any]) -> Dependencies | None:
    given = parameters["dependencies"]
    if given is None:
        return None
    lock, directory = (validate.relative_path(given[name], f"dependencies.{name}") for name in ("lock", "directory"))
    return Dependencies(lock, directory, words(given["install"], "dependencies.install"))


def pinned_commit(parameters: dict[str, Any], repository: Repository) -> str:
    """The commit to build; one that was pinned must be in the repository."""
    if parameters["commit"]:
        return repository.resolve(validate.commit(parameters["commit"]), "commit")
    return repository.resolve(validate.ref(parameters["ref"], "ref"), "ref")


def marked(module: AnsibleModule) -> dict[str, Any]:
    parameters = module.params
    path = validate.absolute_path(parameters["marks_file"], "marks_file")
    service = validate.identifier(parameters["service"], "service")
    commit = validate.commit(parameters["commit"])
    by = validate.identifier(parameters["by"], "by")
    reason = validate.reason(parameters["reason"])
    wanted = parameters["mark"]
    _existing_directory(os.path.dirname(path), "marks_file")
    before = marks.load(path).get(service, {}).get(commit)
    if not module.check_mode:
        marks.mark(path, service, commit, wanted, by=by, reason=reason)
    after = marks.load(path).get(service, {}).get(commit)
    return {
        "changed": (before or {}).get("mark") != wanted,
        "commit": commit,
        "mark": after,
        "diff": {"before": {"mark": (before or {}).get("mark")}, "after": {"mark": wanted}},
    }


STATES = {"listed": listed, "live": live, "built": built, "marked": marked}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": list(STATES), "default": "listed"},
            "root": {"type": "path"},
            "required": {"type": "list", "elements": "str", "default": []},
            "release": {"type": "str"},
            "commit": {"type": "str"},
            "ref": {"type": "str"},
            "repository": {"type": "path"},
            "build": {"type": "list", "elements": "list", "default": []},
            "dependencies": {
                "type": "dict",
                "options": {
                    "lock": {"type": "str", "required": True},
                    "directory": {"type": "str", "required": True},
                    "install": {"type": "list", "elements": "str", "required": True},
                },
            },
            "environment": {"type": "dict", "default": {}},
            "timeout": {"type": "int", "default": 600},
            "secret_files": {"type": "dict", "default": {}, "no_log": False},
            "marks_file": {"type": "path"},
            "service": {"type": "str"},
            "mark": {"type": "str", "choices": list(marks.MARKS)},
            "by": {"type": "str"},
            "reason": {"type": "str"},
            "run": RUN_ARGUMENT,
        },
        required_if=[
            ("state", "listed", ["root"]),
            ("state", "live", ["root", "release"]),
            ("state", "built", ["root", "repository"]),
            ("state", "built", ["commit", "ref"], True),
            ("state", "marked", ["marks_file", "service", "commit", "mark", "by", "reason"]),
        ],
        mutually_exclusive=[("commit", "ref")],
        supports_check_mode=True,
    )
    errors.finish(module, STATES[module.params["state"]])


if __name__ == "__main__":
    main()
