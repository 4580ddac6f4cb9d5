"""What the Makefile runs is there."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_make_faults_finds_its_tests() -> None:
    """Test files with the same name in two directories cannot be collected together."""
    asked = ["tests/integration", "tests/e2e", "--every-fault", "--collect-only"]
    found = subprocess.run(
        [sys.executable, "-m", "pytest", *asked], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout
