import { Body, Controller, Headers, HttpCode, Post, Req } from '@nestjs/common';
import type { Request } from 'express';
import { AuthService, type Identity } from './auth.service.js';

declare module 'express-session' {
  interface SessionData {
    user: Identity;
  }
}

type Credentials = { email?: string; password?: string };

@Controller('auth')
export class AuthController {
  constructor(private readonly auth: AuthService) {}

  @Post('login')
  @HttpCode(200)
  async login(@Req() request: Request, @Body() { email = '', password = '' }: Credentials = {}) {
    const identity = await this.auth.authenticate(email, password);
    request.session.user = identity;
    return { token: await this.auth.issue(identity) };
  }

  @Post('verify-token')
  @HttpCode(200)
  async verifyToken(@Headers('authorization') authorization = '') {
    const identity = await this.auth.verify(authorization.replace(/^Bearer /, ''));
    return { valid: true, user: identity.sub };
  }
}
