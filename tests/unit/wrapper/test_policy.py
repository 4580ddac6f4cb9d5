"""What an inventory says itself counts for the command as it does for Ansible."""
from __future__ import annotations

from contextvars import copy_context
from pathlib import Path

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
