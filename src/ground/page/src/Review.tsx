// Who it is: one sighting at a time, decided by a person. A decision is of this sighting alone, saved at once, and with the
// number of decisions that this page knew of: where somebody else was first, theirs is shown and nothing is saved.
import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { account, animals, ask, Failure, decisionsMade, mayDecide, picture, queue, recent, referencesOf, type Decided, type Details, type Summary, type Verdict } from "./api";
import { Crop } from "./Now";
import { Pair, type Picture } from "./Pair";
import { certainty, fullTime, inHundred, notInCatalogue, overall, place, plural, proposal, time, verdict } from "./words";

interface Wish {
  verdict: Verdict;
  animal?: string;
}
interface Done {
  id: string;
  what: string;
}

/** What this page decided, so that it can be undone from anywhere; the latest last. */
const mine = signal<Done[]>([]);

const show = (id: string) => {
  location.hash = `review/${id}`;
};

export function Review({ shown }: { shown: string | undefined }) {
  const id = shown ?? queue.value[0]?.id;
  const waiting = queue.value;
  const mineDecided = recent.value.filter((s) => s.standing?.person === account.value?.name);
  const [list, setList] = useState<"waiting" | "mine">("waiting");
  const listed = list === "waiting" ? waiting : mineDecided;
  return (
    <div class="review">
      <h1 class="hidden">Review</h1>
      <aside class="queue" aria-label="Sightings">
        <div class="tabs" role="group" aria-label="Which sightings">
          <button aria-pressed={list === "waiting"} onClick={() => setList("waiting")}>
            Wait for review
          </button>
          <button aria-pressed={list === "mine"} onClick={() => setList("mine")}>
            Reviewed by me
          </button>
        </div>
        <p class="quiet">{list === "waiting" ? "The most doubtful first." : "Of the latest sightings."}</p>
        {listed.length === 0 && <p class="quiet">{list === "waiting" ? "Nothing waits: all is decided." : "Nothing yet."}</p>}
        <ol>
          {listed.map((s) => (
            <li key={s.id}>
              <a href={`#review/${s.id}`} aria-current={s.id === id ? "true" : undefined}>
                <Crop sighting={s} />
                <span>
                  <strong>{s.standing ? verdict(s.standing) : proposal(s).who}</strong>
                  <small>{s.standing ? time(s.standing.made) : `${proposal(s).sure}`}</small>
                </span>
              </a>
            </li>
          ))}
        </ol>
      </aside>
      {id ? <Sighting key={id} id={id} /> : <p class="card quiet">Nothing waits: all is decided.</p>}
    </div>
  );
}

function Sighting({ id }: { id: string }) {
  const [details, setDetails] = useState<Details | null>(null);
  const [wrong, setWrong] = useState("");
  const [conflict, setConflict] = useState<{ wish: Wish; history: Decided[] } | null>(null);
  const [selected, setSelected] = useState<string | null>(null);
  const [possible, setPossible] = useState(false);
  const [busy, setBusy] = useState(false);
  const note = useRef<HTMLTextAreaElement>(null);
  const other = useRef<HTMLDialogElement>(null);
  const fresh = useRef<HTMLDialogElement>(null);
  const revision = recent.value.find((s) => s.id === id)?.revision;
  const made = decisionsMade.value;
  useEffect(() => {
    let gone = false;
    ask<Details>("GET", `/api/sightings/${encodeURIComponent(id)}`).then(
      (answer) => {
        if (gone) return;
        setDetails(answer);
        // Where the machine knows nobody like it, nobody is confirmed by one key.
        const first = answer.summary.proposal === "unknown" ? undefined : answer.message.candidates[0];
        setSelected((s) => s ?? first?.organismID ?? null);
      },
      (e: Error) => {
        if (!gone) setWrong(e.message);
      },
    );
    return () => {
      gone = true;
    };
  }, [id, revision, made]);

  const decide = async (wish: Wish, known?: number) => {
    if (!details || busy || !mayDecide.value) return;
    setBusy(true);
    setWrong("");
    const { summary } = details;
    // The one after it, as the queue stands now.
    const place = queue.peek().findIndex((s) => s.id === id);
    const next = queue.peek()[place + 1] ?? queue.peek().find((s) => s.id !== id);
    try {
      const answer = await ask<Details>("POST", `/api/sightings/${id}/decisions`, {
        revision: summary.revision,
        decisions: known ?? summary.decisions,
        verdict: wish.verdict,
        animal: wish.animal,
        possible: wish.verdict !== "undone" && possible,
        note: note.current?.value || undefined,
      });
      setConflict(null);
      setDetails(answer);
      if (note.current) note.current.value = "";
      setPossible(false);
      if (wish.verdict === "undone") {
        mine.value = mine.value.filter((d) => d.id !== id);
      } else {
        const standing = answer.summary.standing;
        mine.value = [...mine.value.slice(-49), { id, what: standing ? verdict(standing) : "" }];
        queue.value = queue.value.filter((s) => s.id !== id);
        if (next && place >= 0) show(next.id);
        else if (place >= 0) show(id);
      }
    } catch (e) {
      if (e instanceof Failure && e.status === 409 && e.history) setConflict({ wish, history: e.history });
      else setWrong((e as Error).message);
    } finally {
      setBusy(false);
    }
  };

  const undoLast = () => {
    if (details?.summary.standing) return void decide({ verdict: "undone" });
    const last = mine.value.at(-1);
    if (last) show(last.id);
  };
  const step = (by: number) => {
    const ids = queue.value.map((s) => s.id);
    const at = ids.indexOf(id);
    const to = ids[at < 0 ? 0 : at + by];
    if (to) show(to);
  };
  const confirm = () => {
    if (selected) void decide({ verdict: "identified", animal: selected });
  };
  const keys = useRef<(event: KeyboardEvent) => void>(() => {});
  keys.current = (event) => {
    const target = event.target as HTMLElement;
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (target.matches("input:not([type=checkbox]):not([type=range]), textarea, select")) {
      if (event.key === "Escape") target.blur();
      return;
    }
    const isButton = target.matches("button, a, [role=application]");
    const actions: Record<string, () => void> = {
      j: () => step(1),
      k: () => step(-1),
      o: () => other.current?.showModal(),
      n: () => fresh.current?.showModal(),
      w: () => void decide({ verdict: "notAWhale" }),
      t: () => void decide({ verdict: "cannotTell" }),
      u: undoLast,
      p: () => setPossible((p) => !p),
      m: () => note.current?.focus(),
    };
    if (!isButton) actions.Enter = confirm;
    const candidate = details?.message.candidates[Number(event.key) - 1];
    if (candidate) actions[event.key] = () => setSelected(candidate.organismID);
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  };
  useEffect(() => {
    const listen = (event: KeyboardEvent) => keys.current(event);
    addEventListener("keydown", listen);
    return () => removeEventListener("keydown", listen);
  }, []);

  if (!details) return <div class="sighting">{wrong ? <p class="card wrong">{wrong}</p> : <p class="quiet">…</p>}</div>;
  const { summary: s, message } = details;
  const standing = s.standing;
  const candidates = message.candidates;
  const unknown = s.unknownProbability;
  const sameFrame = [...recent.value, ...queue.value].filter((x, i, all) => x.id !== id && x.flight === s.flight && x.camera === s.camera && x.time === s.time && all.findIndex((y) => y.id === x.id) === i);
  return (
    <div class="sighting">
      <Heading summary={s} details={details} sameFrame={sameFrame} />
      {standing && (
        <p class="stands" role="status">
          <strong>{verdict(standing)}</strong> — decided by {standing.person}, {time(standing.made)}
          {(details.history.at(-1)?.revision ?? 0) < s.revision && <span class="quiet"> · more frames came since then</span>}
        </p>
      )}
      {conflict && (
        <div class="conflict" role="alert">
          <p>
            <strong>Somebody else was first.</strong> Your decision was not saved.
          </p>
          <Decisions history={conflict.history} />
          <div class="row">
            <button class="strong" onClick={() => setConflict(null)}>
              Leave it so
            </button>
            {/* With what is known now: whoever comes first once more is shown once more. */}
            <button onClick={() => void decide(conflict.wish, conflict.history.length)}>Decide anyway: {wishInWords(conflict.wish)}</button>
          </div>
        </div>
      )}
      {wrong && (
        <p class="wrong" role="alert">
          {wrong}
        </p>
      )}
      <Compare details={details} animal={selected} />
      <div class="columns">
        <section aria-label="Candidates">
          <h3>Who it may be</h3>
          {candidates.length === 0 && <p class="quiet">The machine names nobody.</p>}
          <ol class="candidates">
            {candidates.map((c, i) => {
              const p = overall(c.probability, unknown);
              return (
                <li key={c.organismID}>
                  <button aria-pressed={selected === c.organismID} onClick={() => setSelected(c.organismID)}>
                    <kbd>{i + 1}</kbd>
                    <Thumbnail animal={c.organismID} />
                    <span class="said">
                      <strong>{c.organismID}</strong>
                      <small>
                        {certainty(p)}, {inHundred(p)}
                      </small>
                      <Bar share={p} />
                    </span>
                  </button>
                </li>
              );
            })}
            {unknown != null && (
              <li class="unknown">
                <span class="said">
                  <strong>None of the catalogue</strong>
                  <small>
                    {notInCatalogue(unknown)}, {inHundred(unknown)}
                  </small>
                  <Bar share={unknown} />
                </span>
              </li>
            )}
          </ol>
          <p class="quiet">So often the machine is right where it says so.</p>
        </section>
        <section aria-label="Decision">
          <h3>What you decide</h3>
          {!mayDecide.value ? (
            <p class="quiet">Your account sees, and does not decide.</p>
          ) : (
            <>
              <div class="actions">
                <button class="strong" disabled={!selected || busy} onClick={confirm}>
                  {selected ? `It is ${selected}` : "Choose a candidate"} <kbd>Enter</kbd>
                </button>
                <button disabled={busy} onClick={() => other.current?.showModal()}>
                  Another animal… <kbd>O</kbd>
                </button>
                <button disabled={busy} onClick={() => fresh.current?.showModal()}>
                  Not in the catalogue… <kbd>N</kbd>
                </button>
                <button disabled={busy} onClick={() => void decide({ verdict: "notAWhale" })}>
                  Not a whale <kbd>W</kbd>
                </button>
                <button disabled={busy} onClick={() => void decide({ verdict: "cannotTell" })}>
                  Cannot tell <kbd>T</kbd>
                </button>
                <button disabled={busy || (!standing && mine.value.length === 0)} onClick={undoLast}>
                  {standing || mine.value.length === 0 ? "Undo" : `Back to ${mine.value.at(-1)!.what}`} <kbd>U</kbd>
                </button>
              </div>
              <label class="switch">
                <input type="checkbox" checked={possible} onChange={(event) => setPossible(event.currentTarget.checked)} /> possible only, not definite <kbd>P</kbd>
              </label>
              <label class="note">
                Note <kbd>M</kbd>
                <textarea ref={note} rows={2} maxLength={4000} />
              </label>
              <p class="quiet">
                <kbd>J</kbd> next, <kbd>K</kbd> previous, <kbd>1</kbd>–<kbd>5</kbd> choose a candidate, <kbd>B</kbd> blink
              </p>
            </>
          )}
        </section>
        <section aria-label="What was decided">
          <h3>What was decided</h3>
          {details.history.length === 0 ? <p class="quiet">Nothing yet: the name is the machine's proposal.</p> : <Decisions history={details.history} />}
        </section>
      </div>
      <Chooser dialog={other} title="Another animal" names={animals.value.map((a) => a.name)} fresh={false} choose={(animal) => void decide({ verdict: "identified", animal })} />
      <Chooser dialog={fresh} title="Not in the catalogue" names={animals.value.filter((a) => a.provisional).map((a) => a.name)} fresh choose={(animal) => void decide({ verdict: "notInCatalogue", animal })} />
    </div>
  );
}

function wishInWords(wish: Wish): string {
  return verdict({ verdict: wish.verdict, animal: wish.animal ?? null, possible: false });
}

function Heading({ summary: s, details, sameFrame }: { summary: Summary; details: Details; sameFrame: Summary[] }) {
  const { who, sure, probability } = proposal(s);
  const { frame, headLengthMeters } = { ...details.message, frame: details.message.frame };
  return (
    <header>
      <h2>
        {who} <small>{sure}</small>
        {probability != null && <small class="quiet"> · right in {inHundred(probability)}</small>}
      </h2>
      <p class="quiet">
        {fullTime(s.time)} · {s.platform}
        {s.camera && <>, camera {s.camera}</>} · {place(s)} · seen in {plural(s.framesSeen ?? 1, "frame")}
        {frame.file && <> · {frame.file}</>}
        {headLengthMeters != null && (
          <>
            {" "}
            · head {headLengthMeters.toFixed(2)} m{details.message.headLengthUncertaintyMeters != null && <> ± {details.message.headLengthUncertaintyMeters.toFixed(2)} m</>}
          </>
        )}
      </p>
      {frame.damaged && <p class="wrong">The frame is damaged: {frame.damaged}</p>}
      {sameFrame.length > 0 && (
        <p class="quiet">
          In the same frame, each decided by itself:{" "}
          {sameFrame.map((x, i) => (
            <>
              {i > 0 && ", "}
              <a href={`#review/${x.id}`}>{x.standing ? verdict(x.standing) : proposal(x).who}</a>
            </>
          ))}
        </p>
      )}
    </header>
  );
}

interface Reference {
  number: number;
  file: string;
}
const known = new Map<string, Promise<Reference[]>>();
function useReferences(animal: string | null): Reference[] {
  const [references, set] = useState<Reference[]>([]);
  useEffect(() => {
    set([]);
    if (!animal) return;
    let gone = false;
    let asked = known.get(animal);
    if (!asked) {
      asked = ask<Reference[]>("GET", referencesOf(animal));
      known.set(animal, asked);
    }
    asked.then((r) => !gone && set(r)).catch(() => known.delete(animal));
    return () => {
      gone = true;
    };
  }, [animal]);
  return references;
}

function Thumbnail({ animal }: { animal: string }) {
  const references = useReferences(animal);
  return references[0] ? <img src={`${referencesOf(animal)}/0`} alt="" width="96" height="48" loading="lazy" /> : <span class="none">no photograph</span>;
}

/** The sighting beside the photographs of the chosen candidate. */
function Compare({ details, animal }: { details: Details; animal: string | null }) {
  const references = useReferences(animal);
  const [crop, setCrop] = useState(0);
  const [reference, setReference] = useState(0);
  useEffect(() => setReference(0), [animal]);
  const name = details.crops[Math.min(crop, details.crops.length - 1)];
  const at = references[Math.min(reference, references.length - 1)];
  const seen: Picture = {
    title: "This sighting",
    source: name ? picture(name) : null,
    missing: "Its picture has not arrived yet. It may stay behind on a thin link.",
    more: details.crops.length > 1 ? () => setCrop((c) => (c + 1) % details.crops.length) : undefined,
    caption: details.crops.length > 1 ? `${crop + 1} of ${details.crops.length}` : "",
  };
  const compared: Picture = {
    title: animal ?? "Nobody is chosen yet",
    source: animal && at ? `${referencesOf(animal)}/${at.number}` : null,
    missing: animal ? `This station has no photographs of ${animal}: start it with --catalogue.` : "Choose a candidate to compare with.",
    more: references.length > 1 ? () => setReference((r) => (r + 1) % references.length) : undefined,
    caption: at ? `${at.file}${references.length > 1 ? `, ${reference + 1} of ${references.length}` : ""}` : "",
  };
  return <Pair left={seen} right={compared} />;
}

function Bar({ share }: { share: number }) {
  return (
    <span class="bar" aria-hidden="true">
      <span style={{ width: `${Math.round(share * 100)}%` }} />
    </span>
  );
}

function Decisions({ history }: { history: Decided[] }) {
  return (
    <ol class="history">
      {history.map((d) => (
        <li key={d.number}>
          <strong>{verdict(d)}</strong> <span class="quiet">{d.person}, {time(d.made)}</span>
          {d.note && <p>{d.note}</p>}
        </li>
      ))}
    </ol>
  );
}

/** Asks for the name of an animal: one of a list, or with `fresh` a new one. */
function Chooser(props: { dialog: { current: HTMLDialogElement | null }; title: string; names: string[]; fresh: boolean; choose: (name: string) => void }) {
  const [typed, setTyped] = useState("");
  const fold = (text: string) => text.trim().replace(/\s+/g, " ").toLowerCase();
  const matching = props.names.filter((name) => fold(name).includes(fold(typed)));
  const exact = matching.find((name) => fold(name) === fold(typed));
  const chosen = exact ?? (props.fresh ? typed.trim() : matching.length === 1 || typed ? matching[0] : undefined);
  const close = () => props.dialog.current?.close();
  const take = (name: string) => {
    close();
    props.choose(name);
  };
  return (
    <dialog ref={props.dialog} aria-label={props.title} onClose={() => setTyped("")}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (chosen) take(chosen);
        }}
      >
        <h3>{props.title}</h3>
        <label>
          {props.fresh ? "A name for the time being" : "Name"}
          <input value={typed} onInput={(event) => setTyped(event.currentTarget.value)} autocomplete="off" maxLength={100} />
        </label>
        <div class="names">
          {matching.slice(0, 60).map((name) => (
            <button type="button" key={name} onClick={() => take(name)}>
              {name}
            </button>
          ))}
          {matching.length === 0 && !props.fresh && <p class="quiet">Nobody has this name. An animal that no catalogue has is "not in the catalogue".</p>}
        </div>
        <div class="row">
          <button class="strong" disabled={!chosen}>
            {chosen ? `It is ${chosen}` : "Type a name"}
          </button>
          <button type="button" onClick={close}>
            Cancel
          </button>
        </div>
      </form>
    </dialog>
  );
}
