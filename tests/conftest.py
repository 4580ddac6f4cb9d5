from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import _internal
from ansible.module_utils.common import warnings
from ansible.module_utils.testing import patch_module_args


@pytest.fixture
def call_module(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run a module's main() in this process and return what it exits with, as Ansible would see it."""

    # They are kept for the life of a process, which for a module is one call.
    def call(module: Any, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
        warnings._global_warnings.clear()
        # Once a test has imported an action plugin, warnings would go to the controller's screen.
        monkeypatch.setattr(_internal, "is_controller", False)
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Any]:
    """An open run, as modules take it."""
    return {"id": "20261124T031500Z-backend-3f9a", "fence": 1, "state_dir": str(tmp_path / "state")}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every-fault", action="store_true", help="every point, component and cell, and the long tests")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "every_fault: takes long; only with --every-fault")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--every-fault"):
        for item in items:
            if item.get_closest_marker("every_fault"):
                item.add_marker(pytest.mark.skip("takes long: make faults"))


@pytest.fixture(scope="session")
def every_fault(request: pytest.FixtureRequest) -> bool:
    """Whether everything is to be tried that takes long."""
    return bool(request.config.getoption("--every-fault"))
