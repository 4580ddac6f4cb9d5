import { cookies } from 'next/headers';
import { apiUrl } from './api-proxy';
import { SESSION_COOKIE } from './session-cookie';

/** The administrator whose token the backend accepts; null when there is none. */
export async function administrator(): Promise<string | null> {
  const token = (await cookies()).get(SESSION_COOKIE)?.value;
  const answer = await fetch(apiUrl('auth/verify-token'), {
    method: 'POST',
    headers: { authorization: `Bearer ${token}` },
    cache: 'no-store',
  });
  return answer.ok ? (await answer.json()).user : null;
}
