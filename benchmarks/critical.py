"""The critical backend rollback on the sandbox's two hosts, under two loads, against a bare script."""
from __future__ import annotations

import argparse

from ansible_collections.marketsage.rollback.sandbox.layout import DEFAULT_PORT_BASE
from race import race

PORT_BASE = DEFAULT_PORT_BASE + 4500
# Requests a second: one that leaves the machine some time, and one that takes most of two cores.
RATES = (20, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    arguments = parser.parse_args()
    for rate in arguments.rates:
        race(PORT_BASE, 0, rate, arguments.rounds)


if __name__ == "__main__":
    main()
