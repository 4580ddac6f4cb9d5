import {
  BadRequestException,
  Body,
  Controller,
  DefaultValuePipe,
  Delete,
  Get,
  HttpCode,
  NotFoundException,
  Param,
  ParseIntPipe,
  Post,
  Put,
  Query,
} from '@nestjs/common';
import { PrismaService } from '../prisma/prisma.service.js';

type ContactInput = { email?: string; name?: string };

@Controller('contacts')
export class ContactsController {
  constructor(private readonly prisma: PrismaService) {}

  @Get()
  list(@Query('take', new DefaultValuePipe(100), ParseIntPipe) take: number) {
    return this.prisma.contact.findMany({ orderBy: { id: 'desc' }, take });
  }

  @Post()
  create(@Body() { email, name }: ContactInput = {}) {
    if (!email?.includes('@')) throw new BadRequestException('email: must be an address');
    return this.prisma.contact.create({ data: { email, name } });
  }

  @Get(':id')
  async get(@Param('id', ParseIntPipe) id: number) {
    const contact = await this.prisma.contact.findUnique({ where: { id } });
    if (!contact) throw new NotFoundException();
    return contact;
  }

  @Put(':id')
  update(@Param('id', ParseIntPipe) id: number, @Body() { name }: ContactInput = {}) {
    return this.prisma.contact.update({ where: { id }, data: { name } });
  }

  @Delete(':id')
  @HttpCode(204)
  async remove(@Param('id', ParseIntPipe) id: number) {
    await this.prisma.contact.delete({ where: { id } });
  }
}
