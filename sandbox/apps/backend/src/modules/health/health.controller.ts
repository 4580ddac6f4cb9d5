import { Controller, Get, ServiceUnavailableException } from '@nestjs/common';
import { MIGRATIONS, RELEASE } from '../../release.js';
import { PrismaService } from '../prisma/prisma.service.js';
import { RedisService } from '../redis/redis.service.js';

@Controller('health')
export class HealthController {
  constructor(
    private readonly prisma: PrismaService,
    private readonly redis: RedisService,
  ) {}

  @Get()
  health() {
    return { status: 'ok', release: RELEASE, pid: process.pid, ready: true, migrations: MIGRATIONS };
  }

  @Get('db')
  db() {
    return reachable(() => this.prisma.ping());
  }

  @Get('redis')
  cache() {
    return reachable(() => this.redis.ping());
  }
}

async function reachable(ping: () => Promise<void>) {
  const started = performance.now();
  try {
    await ping();
  } catch (error) {
    throw new ServiceUnavailableException({ status: 'error', release: RELEASE, message: String(error) });
  }
  return { status: 'ok', release: RELEASE, latencyMs: Math.round(performance.now() - started) };
}
