import { Injectable, OnApplicationShutdown, OnModuleInit } from '@nestjs/common';
import { PrismaPg } from '@prisma/adapter-pg';
import { databaseConfig } from '../../config/database.config.js';
import { PrismaClient } from '../../generated/prisma/client.js';

@Injectable()
export class PrismaService extends PrismaClient implements OnModuleInit, OnApplicationShutdown {
  constructor() {
    super({ adapter: new PrismaPg(databaseConfig()) });
  }

  async onModuleInit() {
    await this.ping();
  }

  // Not onModuleDestroy: that comes before the server has finished its requests.
  async onApplicationShutdown() {
    await this.$disconnect();
  }

  async ping() {
    await this.$queryRaw`SELECT 1`;
  }
}
