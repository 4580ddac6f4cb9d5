"""What an inventory says itself counts for the command as it does for Ansible."""
from __future__ import annotations

from contextvars import copy_context
from pathlib import Path

import pytest
from ansible_collections.marketsage.rollback.wrapper import policy
from ansible_collections.marketsage.rollback.wrapper.cli import main
from click.testing import CliRunner

EXAMPLE = Path(__file__).resolve().parents[3] / "inventories/example"


def test_a_variable_of_the_inventory_replaces_the_one_of_the_playbooks_and_no_other() -> None:
    def of_the_example(inventory: Path) -> None:
        policy.use(inventory)
        assert list(policy.procedures()) == ["backend"]
        assert policy.severity("P0")["response_time"] == 300

    copy_context().run(of_the_example, EXAMPLE)
    copy_context().run(of_the_example, EXAMPLE / "hosts.yml")
    assert "full_system" in policy.procedures()


def test_what_the_inventorys_product_does_not_have_is_refused() -> None:
    command = ["plan", "frontend", "-s", "P0", "-r", "pages are blank", "-i", str(EXAMPLE)]
    refused = copy_context().run(CliRunner().invoke, main, command)
    assert refused.exit_code == 2
    assert "service: 'frontend' is not one of backend\n" in refused.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rollback_policy: {severities: none}\n", "rollback_policy: "),
        ("rollback_policy: {severities\n  P0: x\n", "policy.yml: no YAML: "),
        ("- rollback_policy\n", "policy.yml: not names with their values"),
    ],
)
def test_what_the_inventory_says_in_a_wrong_form_is_told_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    written = tmp_path / "group_vars/all/policy.yml"
    written.parent.mkdir(parents=True)
    written.write_text(text)
    command = ["plan", "backend", "-s", "P0", "-r", "health answers 500", "-i", str(tmp_path)]
    refused = copy_context().run(CliRunner().invoke, main, command)
    assert (refused.exit_code, refused.exception.__class__) == (2, SystemExit)
    assert said in refused.output.splitlines()[-1]


def test_an_empty_file_of_the_inventory_says_nothing(tmp_path: Path) -> None:
    written = tmp_path / "group_vars/all/policy.yml"
    written.parent.mkdir(parents=True)
    written.write_text("---\n# nothing yet\n")
    copy_context().run(policy.use, tmp_path)
