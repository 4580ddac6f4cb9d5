"""What is sent of a module over a connection."""
from __future__ import annotations

import importlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ansible_collections.marketsage.rollback.plugins.plugin_utils import in_process

ACTIONS = Path(in_process.__file__).parents[1] / "action"
PACKAGE = "ansible_collections/marketsage/rollback/plugins"
# Only Python's own library and what was sent; every part is imported, for a part may import another when it is called.
IMPORT_ALL = """
import importlib, sys, zipfile
sys.path.insert(0, sys.argv[1])
for name in zipfile.ZipFile(sys.argv[1]).namelist():
    if name.endswith(".py"):
        importlib.import_module(name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
"""


def is_sent(action: str) -> bool:
    plugin = importlib.import_module(f"{PACKAGE}/action/{action}".replace("/", "."))
    return issubclass(plugin.ActionModule, in_process.InProcessAction)


@pytest.mark.parametrize("module", [path.stem for path in sorted(ACTIONS.glob("*.py")) if is_sent(path.stem)])
def test_what_is_sent_of_a_module_is_enough_to_import_it(tmp_path: Path, module: str) -> None:
    sources = tmp_path / "sources.zip"
    in_process._write_sources(sources, [module])
    command = [sys.executable, "-I", "-S", "-c", IMPORT_ALL, sources]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_a_module_does_not_import_is_not_sent(tmp_path: Path) -> None:
    sources = tmp_path / "sources.zip"
    in_process._write_sources(sources, ["pm2_restart"])
    sent = zipfile.ZipFile(sources).namelist()
    assert f"{PACKAGE}/modules/pm2_restart.py" in sent
    assert f"{PACKAGE}/module_utils/pm2.py" in sent
    assert f"{PACKAGE}/modules/release.py" not in sent
    assert f"{PACKAGE}/module_utils/railway.py" not in sent
