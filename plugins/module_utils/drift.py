# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the live database is what a release's schema.prisma says, asked of Prisma's own CLI."""
from __future__ import annotations

from ansible_collections.marketsage.rollback.plugins.module_utils import prisma_cli
from ansible_collections.marketsage.rollback.plugins.module_utils.prisma import Release, Row, states
from ansible_collections.marketsage.rollback.plugins.module_utils.prisma_cli import Cli

_EXITS = {0: "none", 2: "found"}


def result(state: str, detail: str) -> dict[str, str]:
    return {"state": state, "detail": detail}


NOT_NEEDED = result("not checked", "the database is ahead of no release that was judged")


def check(live: Release | None, ledger: dict[str, list[Row]], cli: Cli) -> dict[str, str]:
    """`state`: none, found, unknown (asked without success) or not checked; `detail`: why, or what differs."""
    if not live or not cli.argv:
        return result("not checked", "live and prisma were not both given")
    if any(migration["state"] != "applied" for migration in states(ledger, live)):
        return result("not checked", "the database is not at the release's own migrations")
    major = prisma_cli.major_version(live)
    if major is None:
        return result("not checked", f"no supported version of Prisma in {live.path}/node_modules")
    flags = prisma_cli.DATABASE_FLAGS[major]
    answer = prisma_cli.ask(cli, live, ["migrate", "diff", *flags, "--exit-code"])
    state = "unknown" if answer.code is None else _EXITS.get(answer.code, "unknown")
    return result(state, answer.said)
