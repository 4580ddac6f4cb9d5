import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { NextFunction, Request, Response } from 'express';
import { Counter, Histogram, collectDefaultMetrics, register } from 'prom-client';
import { RELEASE } from '../../release.js';

const worker = process.env.NODE_APP_INSTANCE ?? '0';
register.setDefaultLabels({ app: 'marketsage-backend', release: RELEASE, worker });
collectDefaultMetrics();

const requests = new Counter({
  name: 'http_requests_total',
  help: 'Answered requests',
  labelNames: ['method', 'status'],
});
const seconds = new Histogram({
  name: 'http_request_duration_seconds',
  help: 'Time from a request to its answer',
  labelNames: ['method'],
  buckets: [0.01, 0.05, 0.1, 0.5, 1, 5, 10],
});

export function measure(request: Request, response: Response, next: NextFunction) {
  const stop = seconds.startTimer({ method: request.method });
  response.on('finish', () => {
    stop();
    requests.inc({ method: request.method, status: String(response.statusCode) });
  });
  next();
}

export async function serveMetrics(_request: IncomingMessage, response: ServerResponse) {
  response.setHeader('content-type', register.contentType);
  response.setHeader('x-release', RELEASE);
  response.end(await register.metrics());
}

/** Workers share the port of the API, so each also needs one of its own to be scraped at. */
export function listenForScrapes() {
  const base = process.env.METRICS_BASE_PORT;
  if (!base) return;
  createServer(serveMetrics)
    .listen(Number(base) + Number(worker), process.env.HOST ?? '127.0.0.1')
    .unref();
}
