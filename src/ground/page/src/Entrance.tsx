import { useEffect, useState } from "preact/hooks";
import { account, ask, type Account, type Role } from "./api";

const invitation = () => /^#invitation=([0-9a-f]+)$/.exec(location.hash)?.[1];

/** Logging in, or making the account that a link is for. */
export function Entrance() {
  const [link, setLink] = useState(invitation);
  const [role, setRole] = useState<Role | null>(null);
  const [wrong, setWrong] = useState("");
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    const changed = () => setLink(invitation());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  useEffect(() => {
    if (!link) return setRole(null);
    ask<{ invitedAs: Role | null }>("GET", `/api/session?invitation=${link}`).then(
      ({ invitedAs }) => {
        setRole(invitedAs);
        if (!invitedAs) setWrong("This link was used already, or is older than a day. Ask for another.");
      },
      (e: Error) => setWrong(e.message),
    );
  }, [link]);
  const send = async (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.target as HTMLFormElement);
    const name = form.get("name");
    const password = form.get("password");
    setBusy(true);
    setWrong("");
    try {
      const answer = role
        ? await ask<{ account: Account }>("POST", "/api/accounts", { invitation: link, name, password })
        : await ask<{ account: Account }>("POST", "/api/session", { name, password });
      if (link) history.replaceState(null, "", "#now");
      account.value = answer.account;
    } catch (e) {
      setWrong((e as Error).message);
    } finally {
      setBusy(false);
    }
  };
  return (
    <main class="entrance">
      <form class="card" onSubmit={(event) => void send(event as unknown as SubmitEvent)}>
        <h1>
          <img src="./icon.svg" alt="" width="40" height="40" /> Callosity
        </h1>
        <p>{role ? `You are invited as ${role}. Choose a name and a password of at least 10 characters.` : "The ground station"}</p>
        <label>
          Name
          <input name="name" autocomplete="username" required maxLength={100} />
        </label>
        <label>
          Password
          <input name="password" type="password" autocomplete={role ? "new-password" : "current-password"} required minLength={role ? 10 : 1} />
        </label>
        {wrong && (
          <p class="wrong" role="alert">
            {wrong}
          </p>
        )}
        <button class="strong" disabled={busy}>
          {role ? "Make my account" : "Log in"}
        </button>
      </form>
    </main>
  );
}
