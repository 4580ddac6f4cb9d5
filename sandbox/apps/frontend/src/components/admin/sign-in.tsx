'use client';
import { SESSION_COOKIE } from '@/lib/session-cookie';
import { Login } from '../login';

export function SignIn() {
  function signIn(token: string) {
    document.cookie = `${SESSION_COOKIE}=${token}; path=/; samesite=lax`;
    location.assign('/admin/dashboard');
  }

  return <Login onToken={signIn} />;
}
