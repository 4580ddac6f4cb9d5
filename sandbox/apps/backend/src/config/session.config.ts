export const sessionConfig = () => ({
  prefix: 'sess:',
  ttlSeconds: 3600,
  secret: process.env.SESSION_SECRET ?? 'development-session-secret',
});
