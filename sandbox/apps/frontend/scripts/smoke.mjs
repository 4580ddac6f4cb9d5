// Asks a deployed frontend what its users would ask: node scripts/smoke.mjs main|admin|signed-in
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { text } from 'node:stream/consumers';

const { SMOKE_URL = 'http://localhost:3000', SMOKE_EMAIL, SMOKE_PASSWORD_FILE } = process.env;
const APP = process.env.SMOKE_APP_HOST ?? 'app.marketsage.com';
const ADMIN = process.env.SMOKE_ADMIN_HOST ?? 'admin.marketsage.com';
const SESSION_COOKIE = 'next-auth.session-token';

const SUITES = {
  async main() {
    await expectText(APP, '/', 'MarketSage');
    await expectText(APP, '/api/proxy/health', 'ok');
  },
  async admin() {
    await expectText(ADMIN, '/', 'Admin sign-in');
  },
  async 'signed-in'() {
    const token = await logIn();
    const dashboard = await expectText(ADMIN, '/', 'Admin dashboard', { cookie: `${SESSION_COOKIE}=${token}` });
    if (!dashboard.includes('id="newest-contacts"')) throw new Error('the dashboard shows no contacts');
  },
};

/** The body of a 200. Not by fetch, which cannot ask one address for several hosts. */
async function ask(host, path, { body, ...options } = {}) {
  const signal = AbortSignal.timeout(10_000);
  const send = SMOKE_URL.startsWith('https:') ? https.request : http.request;
  const request = send(SMOKE_URL + path, { ...options, headers: { host, ...options.headers }, signal });
  const [answer] = await once(request.end(body), 'response');
  const content = await text(answer);
  if (answer.statusCode !== 200) throw new Error(`${host}${path} answered ${answer.statusCode}`);
  return content;
}

async function expectText(host, path, wanted, headers = {}) {
  const content = await ask(host, path, { headers });
  if (!content.includes(wanted)) throw new Error(`${host}${path} answered without ${wanted}`);
  console.log(`ok: ${host}${path} shows ${wanted}`);
  return content;
}

async function logIn() {
  const account = { email: SMOKE_EMAIL, password: readFileSync(SMOKE_PASSWORD_FILE, 'utf8').trim() };
  const headers = { 'content-type': 'application/json' };
  return JSON.parse(await ask(APP, '/api/proxy/auth/login', { method: 'POST', headers, body: JSON.stringify(account) })).token;
}

await SUITES[process.argv[2]]();
