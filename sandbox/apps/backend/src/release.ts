import { existsSync, readdirSync, readFileSync } from 'node:fs';

const directory = new URL('../', import.meta.url);

/** Id of the release this process runs, as it was when the process started; `development` in a checkout. */
export const RELEASE = readRelease();

/** Names of the migrations that this release's code expects. */
export const MIGRATIONS = readdirSync(new URL('prisma/migrations/', directory), { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map((entry) => entry.name)
  .sort();

function readRelease(): string {
  const file = new URL('release.json', directory);
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')).release : 'development';
}
