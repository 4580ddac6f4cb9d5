"""The critical backend rollback over 1, 5, 20 and 50 machines by real SSH, against a parallel bare ssh script.

Needs root; every machine runs the real application.
"""
from __future__ import annotations

import argparse

from ansible_collections.marketsage.rollback.sandbox import machines
from ansible_collections.marketsage.rollback.sandbox.layout import DEFAULT_PORT_BASE
from ansible_collections.marketsage.rollback.sandbox.processes import BadInput
from race import race

PORT_BASE = DEFAULT_PORT_BASE + 4600
RATE = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 5, 20, 50])
    arguments = parser.parse_args()
    try:
        machines.refuse_impossible(max(arguments.hosts))
    except BadInput as error:
        print(f"not measured over machines: {error}")
        return
    for hosts in arguments.hosts:
        race(PORT_BASE, hosts, RATE, arguments.rounds)


if __name__ == "__main__":
    main()
