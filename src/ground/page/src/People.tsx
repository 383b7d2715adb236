import { useEffect, useState } from "preact/hooks";
import { ask, account, type Account, type Role } from "./api";

const ROLES: [Role, string][] = [
  ["observer", "sees everything"],
  ["reviewer", "decides on sightings too"],
  ["administrator", "invites others too"],
];

/** Who may use the page. */
export function People() {
  const [people, setPeople] = useState<Account[]>([]);
  const [link, setLink] = useState<{ role: Role; address: string } | null>(null);
  const [wrong, setWrong] = useState("");
  const tell = (e: unknown) => setWrong((e as Error).message);
  const load = () => ask<Account[]>("GET", "/api/accounts").then(setPeople, tell);
  useEffect(() => void load(), []);
  const invite = async (role: Role) => {
    setWrong("");
    try {
      const { invitation } = await ask<{ invitation: string }>("POST", "/api/invitations", { role });
      setLink({ role, address: `${location.origin}/#invitation=${invitation}` });
    } catch (e) {
      tell(e);
    }
  };
  const remove = async (name: string) => {
    setWrong("");
    if (!confirm(`Remove the account of ${name}? What was decided stays.`)) return;
    try {
      await ask("DELETE", `/api/accounts/${encodeURIComponent(name)}`);
      await load();
    } catch (e) {
      tell(e);
    }
  };
  return (
    <div class="narrow">
      <h1>People</h1>
      <section class="card">
        <table>
          <thead>
            <tr>
              <th>Name</th>
              <th>Role</th>
              <th>
                <span class="hidden">Remove</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {people.map((person) => (
              <tr key={person.name}>
                <td>{person.name}</td>
                <td>{person.role}</td>
                <td>
                  {person.name !== account.value?.name && (
                    <button class="plain" onClick={() => void remove(person.name)}>
                      Remove
                    </button>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </section>
      <section class="card">
        <h2>Invite somebody</h2>
        <div class="row">
          {ROLES.map(([role, what]) => (
            <button key={role} onClick={() => void invite(role)}>
              as {role} <small>{what}</small>
            </button>
          ))}
        </div>
        {link && (
          <p role="status">
            Good once, for a day, for one {link.role}: <code>{link.address}</code>
          </p>
        )}
        {wrong && (
          <p class="wrong" role="alert">
            {wrong}
          </p>
        )}
      </section>
    </div>
  );
}
