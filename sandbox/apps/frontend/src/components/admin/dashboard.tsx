export function Dashboard({ user }: { user: string }) {
  return (
    <section>
      <h1>Admin dashboard</h1>
      <p id="user">Signed in as {user}</p>
    </section>
  );
}
