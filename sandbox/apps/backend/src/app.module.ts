import { Module } from '@nestjs/common';
import { APP_FILTER } from '@nestjs/core';
import { AuthModule } from './modules/auth/auth.module.js';
import { ContactsModule } from './modules/contacts/contacts.module.js';
import { HealthModule } from './modules/health/health.module.js';
import { PrismaErrorFilter } from './modules/prisma/prisma-error.filter.js';
import { PrismaModule } from './modules/prisma/prisma.module.js';
import { RedisModule } from './modules/redis/redis.module.js';

@Module({
  imports: [PrismaModule, RedisModule, AuthModule, ContactsModule, HealthModule],
  providers: [{ provide: APP_FILTER, useClass: PrismaErrorFilter }],
})
export class AppModule {}
