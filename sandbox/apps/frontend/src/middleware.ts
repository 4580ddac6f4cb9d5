import { NextResponse, type NextRequest } from 'next/server';
import { release } from './lib/release';
import { SESSION_COOKIE } from './lib/session-cookie';

export function middleware(request: NextRequest) {
  const response = route(request);
  response.headers.set('x-release', release());
  return response;
}

/** The admin host shows the admin portal, sign-in first; every other host shows the main app only. */
function route(request: NextRequest) {
  const { pathname } = request.nextUrl;
  if (/^\/(_next|api)\/|\.svg$/.test(pathname)) return NextResponse.next();
  const path = adminPath(pathname);
  if (!isAdminHost(request)) return path === pathname ? show(request, '/not-found') : NextResponse.next();
  return show(request, request.cookies.has(SESSION_COOKIE) ? path : '/admin');
}

function isAdminHost(request: NextRequest) {
  return request.headers.get('host')?.startsWith('admin.');
}

function adminPath(pathname: string) {
  if (pathname === '/') return '/admin/dashboard';
  return /^\/admin(\/|$)/.test(pathname) ? pathname : `/admin${pathname}`;
}

function show(request: NextRequest, pathname: string) {
  const url = request.nextUrl.clone();
  url.pathname = pathname;
  return NextResponse.rewrite(url);
}
