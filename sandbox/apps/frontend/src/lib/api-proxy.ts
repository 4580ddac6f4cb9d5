// What fetch has already undone, and what belongs to one connection or to the backend alone.
const NOT_PASSED_ON = ['connection', 'content-encoding', 'content-length', 'keep-alive', 'transfer-encoding', 'x-release'];

export function apiUrl(path: string): string {
  return `${process.env.API_URL ?? 'http://127.0.0.1:3000'}/api/v2/${path}`;
}

/** Sends a browser's request on to the backend and its answer back; 502 when the backend cannot be reached. */
export async function proxyToApi(request: Request, path: string[]): Promise<Response> {
  const url = apiUrl(path.map(encodeURIComponent).join('/')) + new URL(request.url).search;
  try {
    const answer = await fetch(url, await forwarded(request));
    return new Response(answer.body, { status: answer.status, headers: passedOn(answer.headers) });
  } catch (error) {
    return Response.json({ message: `API not reachable: ${error}` }, { status: 502 });
  }
}

async function forwarded(request: Request): Promise<RequestInit> {
  const { method } = request;
  const headers = passedOn(request.headers);
  headers.delete('host');
  const body = method === 'GET' || method === 'HEAD' ? undefined : await request.arrayBuffer();
  return { method, headers, body, redirect: 'manual', cache: 'no-store' };
}

function passedOn(headers: Headers): Headers {
  const result = new Headers(headers);
  NOT_PASSED_ON.forEach((name) => result.delete(name));
  return result;
}
