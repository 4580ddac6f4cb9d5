import { redirect } from 'next/navigation';
import { Dashboard } from '@/components/admin/dashboard';
import { administrator } from '@/lib/admin-session';

export default async function Page() {
  const user = await administrator();
  if (!user) redirect('/admin');
  return (
    <main>
      <Dashboard user={user} />
    </main>
  );
}
