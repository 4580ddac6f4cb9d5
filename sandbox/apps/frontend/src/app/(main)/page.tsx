import { Contacts } from '@/components/main/contacts';

export default function Home() {
  return (
    <main>
      <h1>MarketSage</h1>
      <Contacts />
    </main>
  );
}
