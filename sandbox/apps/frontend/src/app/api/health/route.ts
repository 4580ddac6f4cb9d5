import { release } from '@/lib/release';

export const dynamic = 'force-dynamic';

export function GET() {
  return Response.json({ status: 'ok', release: release(), deployment: process.env.RAILWAY_DEPLOYMENT_ID ?? null });
}
