import { ArgumentsHost, Catch, ConflictException, HttpException, NotFoundException } from '@nestjs/common';
import { BaseExceptionFilter } from '@nestjs/core';
import { Prisma } from '../../generated/prisma/client.js';

const ANSWERS: Record<string, () => HttpException> = {
  P2002: () => new ConflictException('already exists'),
  P2025: () => new NotFoundException(),
};

/** Answers 409 and 404 where the database says that a row exists already or does not exist. */
@Catch(Prisma.PrismaClientKnownRequestError)
export class PrismaErrorFilter extends BaseExceptionFilter {
  catch(error: Prisma.PrismaClientKnownRequestError, host: ArgumentsHost) {
    super.catch(ANSWERS[error.code]?.() ?? error, host);
  }
}
