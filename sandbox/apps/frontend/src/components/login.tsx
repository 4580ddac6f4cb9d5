'use client';
import { type FormEvent, useState } from 'react';

/** Asks for email and password until the backend gives a token for them. */
export function Login({ onToken }: { onToken: (token: string) => void }) {
  const [refused, setRefused] = useState(false);

  async function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const answer = await fetch('/api/proxy/auth/login', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(Object.fromEntries(new FormData(event.currentTarget))),
    });
    if (answer.ok) onToken((await answer.json()).token);
    else setRefused(true);
  }

  return (
    <form onSubmit={submit}>
      <input name="email" type="email" placeholder="Email" required />
      <input name="password" type="password" placeholder="Password" required />
      <button>Log in</button>
      {refused && <output>Not accepted</output>}
    </form>
  );
}
