import 'reflect-metadata';
import type { Server } from 'node:http';
import { NestFactory } from '@nestjs/core';
import { RedisStore } from 'connect-redis';
import type { NextFunction, Request, Response } from 'express';
import session from 'express-session';
import { AppModule } from './app.module.js';
import { sessionConfig } from './config/session.config.js';
import { listenForScrapes, measure, serveMetrics } from './modules/metrics/metrics.js';
import { RedisService } from './modules/redis/redis.service.js';
import { RELEASE } from './release.js';

let stopping = false;

const app = await NestFactory.create(AppModule, { logger: ['error', 'warn'], abortOnError: false });
const server: Server = app.getHttpServer();
app.setGlobalPrefix('api/v2');
app.use(introduce);
app.use(measure);
app.getHttpAdapter().get('/metrics', serveMetrics);
app.use(sessions());
// Longer than the balancer keeps an idle connection: it must never reuse one that is closed at the same moment.
server.keepAliveTimeout = 75_000;
await app.listen(Number(process.env.PORT ?? 3000), process.env.HOST ?? '127.0.0.1');
listenForScrapes();
process.once('SIGINT', stop);
process.once('SIGTERM', stop);
process.send?.('ready');
console.log(`marketsage-backend ${RELEASE} is ready`);

function introduce(_request: Request, response: Response, next: NextFunction) {
  response.setHeader('x-release', RELEASE);
  if (stopping) response.setHeader('connection', 'close');
  next();
}

function sessions() {
  const { prefix, ttlSeconds, secret } = sessionConfig();
  const store = new RedisStore({ client: app.get(RedisService).client, prefix, ttl: ttlSeconds });
  return session({ store, secret, resave: false, saveUninitialized: false });
}

async function stop() {
  stopping = true;
  // A kept-alive connection that was busy when the server began to close would hold it open until it times out.
  setInterval(() => server.closeIdleConnections(), 50);
  await app.close();
  process.exit(0);
}
