'use client';
import { useEffect, useState } from 'react';
import { Login } from '../login';

type Contact = { id: number; email: string; name: string };

export function Contacts() {
  const [token, setToken] = useState<string>();
  return token ? <ContactList /> : <Login onToken={setToken} />;
}

function ContactList() {
  const [contacts, setContacts] = useState<Contact[]>();
  const [problem, setProblem] = useState('');

  useEffect(() => {
    fetch('/api/proxy/contacts?take=20')
      .then((answer) => (answer.ok ? answer.json() : Promise.reject(`answered ${answer.status}`)))
      .then(setContacts)
      .catch((error) => setProblem(String(error)));
  }, []);

  if (problem) return <p role="alert">Contacts cannot be shown: {problem}</p>;
  return (
    <ul id="contacts">
      {contacts?.map((contact) => (
        <li key={contact.id}>
          {contact.name} &lt;{contact.email}&gt;
        </li>
      ))}
    </ul>
  );
}
