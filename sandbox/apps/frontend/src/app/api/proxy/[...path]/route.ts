import { proxyToApi } from '@/lib/api-proxy';

type Context = { params: Promise<{ path: string[] }> };

const handler = async (request: Request, { params }: Context) => proxyToApi(request, (await params).path);

export { handler as DELETE, handler as GET, handler as PATCH, handler as POST, handler as PUT };
