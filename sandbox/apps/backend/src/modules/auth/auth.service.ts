import { Injectable, UnauthorizedException } from '@nestjs/common';
import { JwtService } from '@nestjs/jwt';
import { authConfig } from '../../config/auth.config.js';

export type Identity = { sub: string };

@Injectable()
export class AuthService {
  constructor(private readonly jwt: JwtService) {}

  async authenticate(email: string, password: string): Promise<Identity> {
    const account = authConfig();
    if (email !== account.email || password !== account.password) throw new UnauthorizedException('wrong password');
    return { sub: email };
  }

  issue(identity: Identity): Promise<string> {
    return this.jwt.signAsync(identity);
  }

  async verify(token: string): Promise<Identity> {
    try {
      return await this.jwt.verifyAsync<Identity>(token);
    } catch (error) {
      throw new UnauthorizedException(String(error));
    }
  }
}
