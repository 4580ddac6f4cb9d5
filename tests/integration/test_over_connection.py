"""Modules sent over a connection as their own sources, against the same modules inside the controller."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
RELEASE, OTHER = "a" * 12, "b" * 12
RUN = {"id": "20261124T031500Z-backend-3f9a", "fence": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The controller, and a host reached by Ansible's ssh whose Python has neither Ansible nor any library."""
    place = tmp_path_factory.mktemp("place")
    for host in ("near", "far"):
        for release in (RELEASE, OTHER):
            (place / host / "releases" / release).mkdir(parents=True)
            about = {"release": release, "commit": release[0] * 40, "ref": "v1", "built_at": "2026-11-01T00:00:00Z"}
            (place / host / "releases" / release / "release.json").write_text(json.dumps(about))
        (place / host / "current").symlink_to(f"releases/{RELEASE}")
        (place / host / "repository.git").mkdir()
    # What the real ssh would have the host's shell do, here.
    program(place / "ssh", f'export HOME={place}/far PATH={place}/found:/usr/bin:/bin\nfor command; do :; done\n'
                           f'echo "$command" >> {place}/commands\nexec sh -c "$command"')
    (place / "found").mkdir()
    program(place / "found" / "python3", f'exec {sys.executable} "$@"')
    program(place / "sudo", f'echo "$@" > {place}/became\nfor command; do :; done\nexec sh -c "$command"')
    program(place / "python", f'exec {sys.executable} -I -S "$@"')
    hosts = {
        "near": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
        "far": {
            "ansible_ssh_executable": f"{place}/ssh",
            "ansible_python_interpreter": f"{place}/python",
            "ansible_become_exe": f"{place}/sudo",
        },
        "discovered": {"ansible_ssh_executable": f"{place}/ssh", "ansible_python_interpreter": "auto_silent"},
    }
    (place / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    return place


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def asked(place: Path, hosts: str, module: str, times: int = 1, **arguments: Any) -> dict[str, dict[str, Any]]:
    """What a module says on each host, by host, when it is asked for the last time."""
    options = {key: arguments.pop(key) for key in ("check_mode", "diff", "become", "environment") if key in arguments}
    answers = place / "answers.json"
    answers.unlink(missing_ok=True)
    ask = {f"marketsage.rollback.{module}": arguments, "register": "said", "ignore_errors": True, **options}
    play = {
        "hosts": hosts,
        "gather_facts": False,
        "tasks": [
            *[ask] * times,
            {
                "ansible.builtin.copy": {
                    "content": "{{ dict(hosts | zip(hosts | map('extract', hostvars, 'said'))) | to_json }}",
                    "dest": str(answers),
                },
                "vars": {"hosts": "{{ ansible_play_hosts }}"}, "delegate_to": "near", "run_once": True,
            },
        ],
    }  # fmt: skip
    (place / "playbook.json").write_text(json.dumps([play]))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", place / "hosts.json", place / "playbook.json"],
        cwd=REPOSITORY, env={**os.environ, "ANSIBLE_HOST_KEY_CHECKING": "False"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert answers.exists(), done.stdout + done.stderr
    told: dict[str, dict[str, Any]] = json.loads(answers.read_text())
    return told


def test_a_host_without_ansible_says_what_the_controller_would(place: Path) -> None:
    root = f"{place}/{{{{ inventory_hostname }}}}"
    said = asked(place, "near:far", "release", root=root)
    assert said["far"]["live"]["release"] == RELEASE
    for answer in said.values():
        del answer["host"]
    assert said["far"] == said["near"]


def test_a_python_that_ansible_discovers_gets_the_sources_once_it_is_known(place: Path) -> None:
    (place / "commands").unlink(missing_ok=True)
    once = asked(place, "discovered", "release", root=f"{place}/far")["discovered"]
    assert "memfd_create" not in (place / "commands").read_text()
    twice = asked(place, "discovered", "release", times=2, root=f"{place}/far")["discovered"]
    assert "memfd_create" in (place / "commands").read_text()
    assert twice["live"] == once["live"] and twice["live"]["release"] in (RELEASE, OTHER)


def test_a_change_is_foretold_and_then_made(place: Path) -> None:
    change = {
        "state": "live", "root": f"{place}/far", "release": OTHER, "run": {**RUN, "state_dir": f"{place}/far/state"},
    }  # fmt: skip
    foretold = asked(place, "far", "release", **change, check_mode=True)["far"]
    assert foretold["changed"] and (place / "far" / "current").readlink().name == RELEASE
    made = asked(place, "far", "release", **change)["far"]
    assert made["changed"] and (place / "far" / "current").readlink().name == OTHER
    assert (place / "far" / "state" / "journal" / f"{RUN['id']}.jsonl").exists()


def test_it_runs_as_whom_ansible_becomes_with_the_tasks_variables(place: Path) -> None:
    answer = asked(place, "far", "release", root=f"{place}/far", become=True, environment={"SAID": "a b"})["far"]
    assert answer["live"] and "-u root" in (place / "became").read_text()
    assert "SAID='a b'" in (place / "became").read_text()


def test_a_hosts_journal_is_kept_with_the_run(place: Path) -> None:
    journal = place / "far" / "kept" / "journal" / f"{RUN['id']}.jsonl"
    journal.parent.mkdir(parents=True)
    journal.write_text('{"reason":"Größe \\"9\\" $HOME"}\n{"torn')
    ask = {"control_dir": f"{place}/control", "run_id": RUN["id"], "state_dir": "~/kept"}
    foretold = asked(place, "far", "rollback_journal", **ask, check_mode=True)["far"]
    assert not Path(foretold["journal"]).exists()
    answer = asked(place, "far", "rollback_journal", **ask)["far"]
    kept = Path(answer["journal"])
    assert not answer["changed"] and kept.read_bytes() == journal.read_bytes()
    kept.unlink()
    ask["state_dir"] = f"{place}/far/kept"
    asked(place, "far", "rollback_journal", **ask, become=True)
    assert kept.read_bytes() == journal.read_bytes()


def test_a_host_without_a_journal_has_none_to_keep(place: Path) -> None:
    ask = {"control_dir": f"{place}/empty", "run_id": RUN["id"], "state_dir": f"{place}/far/nothing"}
    answer = asked(place, "far", "rollback_journal", **ask)["far"]
    assert answer["journal"] is None and not (place / "empty").exists()


def steps(place: Path, host: str, second: dict[str, Any]) -> list[dict[str, Any]]:
    """Two steps on a host whose live release is RELEASE: switch to the other, and `second`."""
    (place / host / "current").unlink()
    (place / host / "current").symlink_to(f"releases/{RELEASE}")
    run = {**RUN, "state_dir": f"{place}/{host}/state"}
    return [{"release": {"state": "live", "root": f"{place}/{host}", "release": OTHER, "run": run}}, second]


def lives(place: Path, host: str) -> str:
    return (place / host / "current").readlink().name


# Here, sent along, and by Ansible's own way, for a path that the host has to expand.
@pytest.mark.parametrize(("host", "root"), [("near", "{place}/near"), ("far", "{place}/far"), ("far", "~")])
def test_steps_are_taken_one_after_another(place: Path, host: str, root: str) -> None:
    then = {"release": {"root": root.format(place=place)}}
    answer = asked(place, host, "host_steps", steps=steps(place, host, then))[host]
    assert answer["changed"] and [one["live"]["release"] for one in answer["steps"]] == [OTHER, OTHER]


def test_steps_foretell_and_do_nothing_in_check_mode(place: Path) -> None:
    taken = steps(place, "far", {"release": {"root": f"{place}/far"}})
    answer = asked(place, "far", "host_steps", steps=taken, check_mode=True)["far"]
    assert answer["changed"] and answer["steps"][0]["switched"] and lives(place, "far") == RELEASE


def test_steps_show_their_differences(place: Path) -> None:
    taken = steps(place, "far", {"release": {"root": f"{place}/far"}})
    answer = asked(place, "far", "host_steps", steps=taken, diff=True)["far"]
    assert answer["diff"] == [{"before": {"live": RELEASE}, "after": {"live": OTHER}}]


@pytest.mark.parametrize("host", ["near", "far"])
def test_a_step_that_fails_is_the_last(place: Path, host: str) -> None:
    taken = steps(place, host, {"release": {"root": f"{place}/nowhere"}})
    answer = asked(place, host, "host_steps", steps=[*reversed(taken)])[host]
    assert answer["failed"] and answer["msg"] == f"root: there is no directory {place}/nowhere"
    assert answer["exit_code"] == 2 and len(answer["steps"]) == 1 and lives(place, host) == RELEASE


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"release": {"root": "/srv", "colour": "red"}}, "Unsupported parameters"),
        ({"release": {"root": "~", "colour": "red"}}, "Unsupported parameters"),
        ({"release": {"root": "/srv"}, "pm2_restart": {}}, "steps: release, pm2_restart must be one module"),
        ({"rollback_plan": {}}, "steps: rollback_plan is not a module of this collection for hosts"),
        ({"..files": {}}, "steps: ..files is not a module of this collection for hosts"),
        ("release", "steps"),
    ],
)
@pytest.mark.parametrize("host", ["near", "far"])
def test_with_one_wrong_step_none_is_taken(place: Path, host: str, second: Any, said: str) -> None:
    answer = asked(place, host, "host_steps", steps=steps(place, host, second))[host]
    assert answer["failed"] and said in answer["msg"] and lives(place, host) == RELEASE


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"root": "srv/backend"}, "root: 'srv/backend' is not an absolute path"),
        ({"root": "/srv", "state": "gone"}, "value of state must be one of"),
        ({"root": "/srv", "colour": "red"}, "Unsupported parameters"),
    ],
)
def test_bad_input_is_named(place: Path, arguments: dict[str, str], said: str) -> None:
    answer = asked(place, "far", "release", **arguments)["far"]
    assert answer["failed"] and said in answer["msg"]


def test_a_path_in_a_home_is_one_in_the_hosts(place: Path) -> None:
    # Which of the two releases is live depends on the test before.
    assert asked(place, "far", "release", root="~")["far"]["live"]["release"] in (RELEASE, OTHER)


def test_a_library_that_the_host_lacks_is_named(place: Path) -> None:
    (place / "url").touch(0o600)
    (place / "url").write_text("postgresql://nobody@127.0.0.1:1/none")
    answer = asked(
        place, "far", "prisma_migrate", state="compatible", database_url_file=f"{place}/url",
        releases_dir=f"{place}/far/releases", live=f"{place}/far/current",
    )["far"]  # fmt: skip
    assert answer["failed"] and "(psycopg)" in answer["msg"]


def test_a_python_that_is_not_there_is_named(place: Path) -> None:
    (place / "python").rename(place / "gone")
    try:
        answer = asked(place, "far", "release", root=f"{place}/far")["far"]
    finally:
        (place / "gone").rename(place / "python")
    assert answer["failed"] and f"{place}/python" in answer["msg"] and answer["rc"] == 127
