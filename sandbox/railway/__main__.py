"""Run the emulator: python -m ansible_collections.marketsage.rollback.sandbox.railway --help."""
from __future__ import annotations

import argparse
from pathlib import Path

import uvicorn
from ansible_collections.marketsage.rollback.sandbox.railway.faults import Faults
from ansible_collections.marketsage.rollback.sandbox.railway.platform import Platform
from ansible_collections.marketsage.rollback.sandbox.railway.server import DroppableProtocol, Emulator, Tokens

_PRO_PLAN_HOURS = 120


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Railway in miniature")
    parser.add_argument("--directory", type=Path, required=True, help="where the deployments' logs go")
    parser.add_argument("--api-port", type=int, required=True, help="GraphQL and the control door")
    parser.add_argument("--edge-port", type=int, required=True, help="relays to the live deployment")
    parser.add_argument("--account-token-file", type=Path, required=True)
    parser.add_argument("--project-token-file", type=Path, required=True)
    parser.add_argument("--drain", type=float, default=2, metavar="SECONDS", help="for requests under way at a switch")
    parser.add_argument(
        "--retention", type=float, default=_PRO_PLAN_HOURS * 3600, metavar="SECONDS", help="of removed images"
    )
    parser.add_argument("--health-timeout", type=float, default=30, metavar="SECONDS")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    faults = Faults()
    platform = Platform(arguments.directory, arguments.drain, arguments.retention, arguments.health_timeout, faults)
    tokens = Tokens(arguments.account_token_file.read_text().strip(), arguments.project_token_file.read_text().strip())
    emulator = Emulator(platform, faults, tokens, arguments.edge_port)
    uvicorn.run(
        emulator.application(),
        host="127.0.0.1",
        port=arguments.api_port,
        http=DroppableProtocol,
        log_level="warning",
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
