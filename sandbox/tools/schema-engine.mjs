#!/usr/bin/env node
// Stands for the native schema engine of Prisma 6.19 and 7 (PRISMA_SCHEMA_ENGINE_BINARY), which npm does not carry:
// the same engine compiled to WebAssembly, behind the same command line and the same JSON-RPC on stdin and stdout.
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { PrismaPg } from '@prisma/adapter-pg';
import { bindMigrationAwareSqlAdapterFactory, ColumnTypeEnum } from '@prisma/driver-adapter-utils';
import pg from 'pg';

// Numbers of PostgreSQL's types; the adapter refuses results that contain "char" or pg_node_tree.
const CHAR = 18;
const TEXT = 25;
const UNKNOWN_TO_ADAPTER = new Set([CHAR, 194]);
const RPC_ERROR = 4466;
const LIVE_DATABASE = '(database)';
const FILES_ONLY = new Set(['empty', 'schemaDatamodel']);

const argv = process.argv.slice(2);
const option = (name) => argv.flatMap((word, i) => (word === name ? [argv[i + 1]] : []));

// Prisma 7 passes its configuration as JSON and forbids the url in schema files; Prisma 6 passes a url, or nothing.
const datasource = option('--datasource')[0];
const isPrisma7 = datasource?.startsWith('{') ?? false;
const configuredUrl = isPrisma7 ? JSON.parse(datasource).url : datasource;
const datamodels = option('--datamodels').map((path) => [path, readFileSync(path, 'utf8')]);

// --- The database

function settings(url) {
  const { hostname, port, username, password, pathname, searchParams } = new URL(url);
  return {
    host: hostname,
    port: Number(port || 5432),
    user: decodeURIComponent(username),
    password: decodeURIComponent(password) || undefined,
    database: decodeURIComponent(pathname.slice(1)),
    schema: searchParams.get('schema') ?? undefined,
    max: 1, // the engine's advisory lock belongs to one session
  };
}

async function open(target) {
  const adapter = await new PrismaPg(target, { schema: target.schema }).connect();
  const { queryRaw } = adapter;
  adapter.queryRaw = async (query) => {
    const result = await adapter.performIO(query);
    const isChar = result.fields.map(({ dataTypeID }) => dataTypeID === CHAR);
    for (const field of result.fields) if (UNKNOWN_TO_ADAPTER.has(field.dataTypeID)) field.dataTypeID = TEXT;
    const answer = await queryRaw.call({ performIO: () => result }, query);
    const columnTypes = answer.columnTypes.map((type, i) => (isChar[i] ? ColumnTypeEnum.Character : type));
    return { ...answer, columnTypes };
  };
  // As one query, so that a migration that fails is undone as a whole, and semicolons inside functions stay.
  adapter.executeScript = async (script) => {
    await adapter.client.query(script).catch((error) => adapter.onError(error));
  };
  return adapter;
}

class Database extends PrismaPg {
  constructor(url) {
    super(settings(url));
  }

  connect() {
    return open(this.config);
  }

  async connectToShadowDb() {
    const name = `prisma_migrate_shadow_db_${randomUUID()}`;
    const server = await this.connect();
    await server.executeScript(`CREATE DATABASE "${name}"`);
    const shadow = await open({ ...this.config, database: name });
    const dispose = shadow.dispose.bind(shadow);
    shadow.dispose = async () => {
      await dispose();
      await server.executeScript(`DROP DATABASE "${name}"`);
      await server.dispose();
    };
    return shadow;
  }
}

/** For comparing files: only tells the engine, which asks when it starts, what kind of database they are meant for. */
class NoDatabase extends PrismaPg {
  async connect() {
    const { Boolean, Text, Int32 } = ColumnTypeEnum;
    const columnNames = ['exists', 'version', 'numeric_version'];
    const version = { columnNames, columnTypes: [Boolean, Text, Int32], rows: [[true, 'PostgreSQL 16.0', 160000]] };
    return Object.assign(await super.connect(), { queryRaw: async () => version });
  }
}

// --- The command line: `cli can-connect-to-database` and `cli create-database`

async function cli(command) {
  const target = settings(configuredUrl);
  const creates = command === 'create-database';
  const client = new pg.Client(creates ? { ...target, database: 'postgres' } : target);
  try {
    await client.connect();
    if (creates) await client.query(`CREATE DATABASE ${pg.escapeIdentifier(target.database)}`);
  } catch (error) {
    const [error_code, message] = connectionError(error, target);
    const fields = { message, error_code, is_panic: false };
    // Prisma skips the first line.
    console.error(`\n${JSON.stringify({ level: 'ERROR', target: 'schema_engine::logger', fields })}`);
    return 1;
  }
  return 0;
}

function connectionError({ code = '', message }, { host, port, database, user }) {
  if (code === '3D000') return ['P1003', `Database \`${database}\` does not exist`];
  if (code.startsWith('28')) return ['P1000', `Authentication failed, the credentials for \`${user}\` are not valid`];
  return ['P1001', `Can't reach database server at \`${host}:${port}\`: ${message}`];
}

// --- The engine

async function loadEngine() {
  const name = isPrisma7 ? 'schema-engine-wasm-7' : 'schema-engine-wasm-6';
  const glue = await import(`${name}/schema_engine_bg`);
  const wasm = readFileSync(new URL('schema_engine_bg.wasm', import.meta.resolve(`${name}/schema_engine_bg`)));
  const { instance } = await WebAssembly.instantiate(wasm, { './schema_engine_bg.js': glue });
  glue.__wbg_set_wasm(instance.exports);
  instance.exports.__wbindgen_start();
  return glue.SchemaEngine;
}

function engineAt(database, models = datamodels) {
  const options = { datamodels: models.length > 0 ? models : undefined };
  return SchemaEngine.new(options, () => {}, bindMigrationAwareSqlAdapterFactory(database));
}

const contents = (files = []) => files.map((file) => (Array.isArray(file) ? file[1] : file.content));

function urlIn(texts) {
  for (const text of texts) {
    const match = /datasource\s+\w+\s*{[^}]*?\burl\s*=\s*(?:env\(\s*"([^"]+)"\s*\)|"([^"]+)")/.exec(text);
    if (match) return match[2] ?? process.env[match[1]];
  }
  return undefined;
}

/** The database that a request, or one side of a comparison, is about. */
function urlOf(params) {
  const { schema, datasource: named, datasourceType } = params ?? {};
  const files = (schema ?? datasourceType ?? named ?? params)?.files;
  return named?.url ?? datasourceType?.url ?? params?.url ?? urlIn(contents(files)) ?? configuredUrl ?? urlIn(contents(datamodels));
}

/** The engine compares schema files only; so a database is first written down as one. */
async function asDatamodel(side) {
  if (side.tag !== 'url' && side.tag !== 'schemaDatasource') return side;
  const url = isPrisma7 ? '' : `url = "${urlOf(side)}"`;
  const files = [{ path: LIVE_DATABASE, content: `datasource db {\n provider = "postgresql"\n ${url}\n}\n` }];
  const engine = await engineAt(new Database(urlOf(side)), files.map(({ path, content }) => [path, content]));
  const request = { schema: { files }, force: true, compositeTypeDepth: -1, namespaces: null, baseDirectoryPath: '.' };
  try {
    return { tag: 'schemaDatamodel', files: (await engine.introspect(request)).schema.files };
  } catch (error) {
    if (error.code === 'P4001') return { tag: 'schemaDatamodel', files }; // the database is empty
    throw error;
  }
}

async function diff(params) {
  const live = [params.from, params.to].filter(({ tag }) => !FILES_ONLY.has(tag));
  const url = live.map(urlOf).find(Boolean) ?? params.shadowDatabaseUrl;
  const engine = await engineAt(live.length > 0 ? new Database(url) : new NoDatabase({}));
  const sides = { from: await asDatamodel(params.from), to: await asDatamodel(params.to) };
  const { stdout, ...result } = await engine.diff({ ...params, ...sides });
  if (stdout) send({ id: 0, method: 'print', params: { content: stdout } });
  return result;
}

async function answer(method, params) {
  if (method === 'diff') return diff(params);
  const engine = await engineAt(new Database(urlOf(params)));
  if (method === 'getDatabaseVersion') return engine.version(params);
  return (await engine[method](params)) ?? null;
}

function send(message) {
  process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
}

function refuse(id, { message, code = null, meta = null }) {
  const data = { is_panic: false, message, error_code: code, meta };
  send({ id, error: { code: RPC_ERROR, message: 'An error happened. Check the data field for details.', data } });
}

async function serve(line) {
  const { id, method, params } = JSON.parse(line);
  if (!method) return; // the reply to a print
  // A panic of the engine reaches no promise; unanswered, Prisma would exit 0 as if all were well.
  process.once('uncaughtException', (error) => {
    refuse(id, { message: panic ?? error.stack });
    process.exit(1);
  });
  try {
    send({ id, result: await answer(method, params) });
  } catch (error) {
    refuse(id, error);
  }
}

if (argv.includes('cli')) process.exit(await cli(argv.at(-1)));
let panic;
globalThis.PRISMA_WASM_PANIC_REGISTRY = { set_message: (message) => (panic = message) };
const SchemaEngine = await loadEngine();
process.once('SIGTERM', () => process.exit(0));
createInterface({ input: process.stdin })
  .on('line', serve)
  .on('close', () => process.exit(0));
