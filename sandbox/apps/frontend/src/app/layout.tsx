import type { ReactNode } from 'react';
import { release } from '@/lib/release';
import './globals.css';

export const metadata = { title: 'MarketSage' };
// The release is only known at run time, so no page may be rendered when the app is built.
export const dynamic = 'force-dynamic';

export default function RootLayout({ children }: { children: ReactNode }) {
  return (
    <html lang="en">
      <body>
        {children}
        <footer>
          Release <span id="release">{release()}</span>
        </footer>
      </body>
    </html>
  );
}
