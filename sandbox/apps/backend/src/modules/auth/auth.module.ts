import { Module } from '@nestjs/common';
import { JwtModule } from '@nestjs/jwt';
import { authConfig } from '../../config/auth.config.js';
import { AuthController } from './auth.controller.js';
import { AuthService } from './auth.service.js';

const { jwtSecret, jwtTtl } = authConfig();

@Module({
  imports: [JwtModule.register({ secret: jwtSecret, signOptions: { expiresIn: jwtTtl } })],
  controllers: [AuthController],
  providers: [AuthService],
})
export class AuthModule {}
