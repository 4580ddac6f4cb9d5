import { SignIn } from '@/components/admin/sign-in';

export default function Page() {
  return (
    <main>
      <h1>Admin sign-in</h1>
      <SignIn />
    </main>
  );
}
