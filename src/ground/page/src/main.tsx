import { render } from "preact";
import { useEffect } from "preact/hooks";
import { signal } from "@preact/signals";
import "./style.css";
import { account, accountsAreNeeded, ask, enter, follow, isConnected, loadAnimals, mayManage, queue, QUEUE, station, unfollow } from "./api";
import { Animals } from "./Animals";
import { Entrance } from "./Entrance";
import { HealthPage } from "./HealthPage";
import { Now } from "./Now";
import { People } from "./People";
import { Review } from "./Review";

/** `#review/ID`: the page, and what it shows. */
export const where = signal(read());
function read(): string[] {
  return location.hash.slice(1).split("/");
}
addEventListener("hashchange", () => {
  where.value = read();
});

const PAGES = [
  ["now", "Now"],
  ["review", "Review"],
  ["animals", "Animals"],
  ["health", "Health"],
] as const;

function Page() {
  const who = account.value;
  const isIn = who != null;
  useEffect(() => {
    if (!isIn) return;
    void loadAnimals();
    follow();
    return unfollow;
  }, [isIn]);
  if (who === undefined) return <p class="quiet waiting">…</p>;
  if (who === null) return <Entrance />;
  const [page = "now", shown] = where.value;
  const pages: readonly (readonly [string, string])[] = mayManage.value && accountsAreNeeded.value ? [...PAGES, ["people", "People"]] : PAGES;
  const waiting = station.value?.waitForReview ?? queue.value.length;
  return (
    <>
      <header class="top">
        <a class="brand" href="#now">
          <img src="./icon.svg" alt="" width="28" height="28" />
          Callosity
        </a>
        <nav aria-label="Pages">
          {pages.map(([key, name]) => (
            <a key={key} href={`#${key}`} aria-current={page === key || (key === "now" && !page) ? "page" : undefined}>
              {name}
              {key === "review" && waiting > 0 && (
                <span class="count" aria-label={`${waiting} wait`}>
                  {waiting > QUEUE * 5 ? `${QUEUE * 5}+` : waiting}
                </span>
              )}
            </a>
          ))}
        </nav>
        <div class="who">
          <span>{who.name}</span>
          {accountsAreNeeded.value && (
            <button
              class="plain"
              onClick={() =>
                void ask("DELETE", "/api/session").then(() => {
                  account.value = null;
                })
              }
            >
              Log out
            </button>
          )}
        </div>
      </header>
      {!isConnected.value && (
        <p class="alarm" role="alert">
          The ground station does not answer. What you see is what was known before; it goes on by itself.
        </p>
      )}
      {station.value?.trouble && (
        <p class="alarm" role="alert">
          The ground station cannot store what arrives, so it is kept where it comes from: {station.value.trouble}
        </p>
      )}
      <main>{page === "review" ? <Review shown={shown} /> : page === "animals" ? <Animals shown={shown} /> : page === "health" ? <HealthPage /> : page === "people" ? <People /> : <Now />}</main>
    </>
  );
}

render(<Page />, document.getElementById("page")!);
enter().catch(() => {
  isConnected.value = false;
  account.value = null;
});
