import { PrismaService } from './modules/prisma/prisma.service.js';

const prisma = new PrismaService();
const contacts = await prisma.contact.count();
const invalid = await prisma.contact.count({ where: { email: { not: { contains: '@' } } } });
await prisma.$disconnect();
console.log(JSON.stringify({ contacts, invalid }));
process.exitCode = invalid ? 1 : 0;
