import { Injectable, OnApplicationShutdown, OnModuleInit } from '@nestjs/common';
import { createClient } from 'redis';

@Injectable()
export class RedisService implements OnModuleInit, OnApplicationShutdown {
  readonly client = createClient({ url: process.env.REDIS_URL ?? 'redis://127.0.0.1:6379', disableOfflineQueue: true });

  async onModuleInit() {
    this.client.on('error', (error: Error) => console.error('redis:', error.message));
    await this.client.connect();
  }

  async onApplicationShutdown() {
    await this.client.close();
  }

  async ping() {
    await this.client.ping();
  }
}
