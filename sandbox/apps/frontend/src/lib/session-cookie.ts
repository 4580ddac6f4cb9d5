export const SESSION_COOKIE = 'next-auth.session-token';
