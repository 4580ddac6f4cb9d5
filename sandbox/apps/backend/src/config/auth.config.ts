export const authConfig = () => ({
  jwtSecret: process.env.JWT_SECRET ?? 'development-jwt-secret',
  jwtTtl: '1h' as const,
  email: process.env.LOGIN_EMAIL ?? 'operator@marketsage.com',
  password: process.env.LOGIN_PASSWORD ?? 'development',
});
