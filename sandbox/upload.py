"""What `railway up` is to Railway: ship the built release in the working directory; it does not wait for it.

The directory's release.json names the commit that the deployment is of.
"""
from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

import httpx
from ansible_collections.marketsage.rollback.sandbox.railway.platform import SERVICE


def main() -> None:
    parser = argparse.ArgumentParser(description="Ship the built release in the working directory")
    parser.add_argument("--railway", required=True, metavar="URL", help="the emulator's control door")
    parser.add_argument("--images", type=Path, required=True, help="where the emulator finds what was shipped")
    arguments = parser.parse_args()
    about = json.loads(Path("release.json").read_text())
    request = {
        "service": SERVICE["name"],
        "commitHash": about["commit"],
        "commitMessage": f"release {about['ref']}",
        "branch": about["ref"],
        "image": str(_image(arguments.images / about["release"])),
    }
    httpx.post(f"{arguments.railway}/_control/deploy", json=request, timeout=10, trust_env=False).raise_for_status()


def _image(target: Path) -> Path:
    """The standalone server with its static files; what was shipped before is shipped again."""
    if not target.exists():
        partial = target.with_name(f".{target.name}")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(".next/standalone", partial, symlinks=True, copy_function=os.link)
        shutil.copytree(".next/static", partial / ".next" / "static", copy_function=os.link)
        partial.rename(target)
    return target


if __name__ == "__main__":
    main()
