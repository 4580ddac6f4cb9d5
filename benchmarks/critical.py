"""The critical backend rollback on the sandbox's two hosts, under 100 requests a second, against a bare script."""
from __future__ import annotations

import argparse

from ansible_collections.marketsage.rollback.sandbox.layout import DEFAULT_PORT_BASE
from race import race

PORT_BASE = DEFAULT_PORT_BASE + 4500
RATE = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    race(PORT_BASE, 0, RATE, parser.parse_args().rounds)


if __name__ == "__main__":
    main()
