"""Traps of a written runbook: each is found where it is, and corrected text has none."""
from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ansible_collections.marketsage.rollback.wrapper import cli, lint
from click.testing import CliRunner

REPOSITORY = Path(__file__).resolve().parents[3]
SEED = Path(os.environ.get("ROLLBACK_RUNBOOK", REPOSITORY.parent / "shared/seed/rollback-procedures.md"))

DANGEROUS = {
    "railway-rest": "curl --fail -X POST https://api.railway.app/rollback",
    "curl-without-fail": "curl -I https://app.example.com/health",
    "host-header-over-tls": 'curl -fsS -H "Host: admin.example.com" https://app.example.com/',
    "up-answers-though-down": "curl -f http://localhost:9090/api/v1/query?query=up",
    "the-commit-before": "git reset --hard HEAD~1",
    "added-files-stay": "git checkout v1.1.0 -- src/auth/",
    "checkout-in-place": "git checkout $LAST_KNOWN_GOOD_COMMIT",
    "deploy-is-no-command": "npm run build && deploy",
    "second-process": "npm run start:prod",
    "pm2-restart": "npm run build && pm2 restart api",
    "diff-against-the-bad-schema": "npx prisma migrate diff --from-url $URL --to-schema-datamodel prisma/schema.prisma",
    "deploy-goes-forward": "npx prisma migrate deploy --preview-feature",
    "status-cannot-tell": "npx prisma migrate status",
    "resolve-changes-no-schema": 'npx prisma migrate resolve --rolled-back "20260101_users"',
    "db-push": "npx prisma db push",
    "dump-by-redirection": "pg_dump $DATABASE_URL > backup.sql",
    "restore-over-the-live-database": "pg_restore -d $DATABASE_URL backup.sql",
    "read-only-default": "psql -c 'ALTER DATABASE app SET default_transaction_read_only = on'",
    "flushdb": "redis-cli FLUSHDB",
    "keys-blocks-redis": 'redis-cli KEYS "sess:*" | wc -l',
    "compose-down": "docker compose -f monitoring.yml down && docker compose up -d",
}
HARMLESS = """
```bash
rollback run full_system -s P0 -r 'health answers 500'
curl -fsS https://api.example.com/api/v2/health
curl --fail --resolve admin.example.com:443:203.0.113.7 https://admin.example.com/
git log --oneline -10
git checkout -b rollback/frontend
git worktree add ../v1.1.0 v1.1.0
npx prisma migrate diff --exit-code --from-url $URL --to-schema-datamodel prisma/schema.prisma
pg_dump -Fc -f backup.dump "$PGURL"
pg_restore --list backup.dump
redis-cli --scan --pattern 'sess:*'
docker compose up -d --no-deps prometheus
npm run test:smoke
```
```json
{"note": "redis-cli FLUSHDB"}
```
In the text, `redis-cli FLUSHDB` is only spoken of.
"""


def names(text: str) -> list[tuple[int, str]]:
    return [(finding["line"], finding["trap"]) for finding in lint.findings(text)]


def test_there_is_an_example_of_every_trap() -> None:
    assert {trap["name"] for trap in lint.traps()} == set(DANGEROUS)


@pytest.mark.parametrize("trap", DANGEROUS)
def test_each_trap_is_found_on_its_line_and_nothing_else_there(trap: str) -> None:
    assert names(f"# Runbook\n\n```bash\n# what it says\n{DANGEROUS[trap]}\n```\n") == [(5, trap)]


def test_corrected_text_has_none() -> None:
    assert names(HARMLESS) == []


def test_a_command_over_several_lines_is_one() -> None:
    text = "```sh\ncurl -X POST \\\n  --fail \\\n  https://lb.example.com/page\npg_dump \\\n  $URL \\\n  > x.sql\n```\n"
    assert names(text) == [(5, "dump-by-redirection")]


def test_a_second_cd_is_found_unless_it_is_absolute() -> None:
    assert names("```bash\ncd backend\nmake\ncd frontend\n```\n") == [(4, "second-cd")]
    assert names("```bash\ncd backend\ncd /srv/frontend\ncd ../frontend\n```\n```bash\ncd frontend\n```\n") == []


def test_the_command_says_where_and_what_instead(tmp_path: Path) -> None:
    document = tmp_path / "RUNBOOK.md"
    document.write_text("```bash\nredis-cli FLUSHDB\n```\n")
    said = CliRunner().invoke(cli.main, ["lint", str(document)])
    assert (said.exit_code, "RUNBOOK.md:2: redis-cli FLUSHDB" in said.output) == (5, True)
    assert "instead: rollback run sessions" in said.output
    told = json.loads(CliRunner().invoke(cli.main, ["lint", "--json", str(document)]).output)
    assert [finding["trap"] for finding in told["findings"]] == ["flushdb"]
    document.write_text(HARMLESS)
    assert CliRunner().invoke(cli.main, ["lint", str(document)]).exit_code == 0
    document.write_bytes(b"\xff\xfe\x00")
    bad = CliRunner().invoke(cli.main, ["lint", str(document)])
    assert (bad.exit_code, "no text in UTF-8" in bad.output) == (2, True)


def test_every_trap_of_marketsages_own_runbook_is_found() -> None:
    if not SEED.exists():
        pytest.skip("MarketSage's runbook is not here (set ROLLBACK_RUNBOOK)")
    found = {trap for _line, trap in names(SEED.read_text())}
    assert found == {trap["name"] for trap in lint.traps()} | {"second-cd"}
