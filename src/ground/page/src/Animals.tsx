// The animals that have names: their photographs, and where and when each was sighted.
import { useEffect, useMemo, useState } from "preact/hooks";
import { animals, ask, decisionsMade, recent, referencesOf, type Animal, type Summary } from "./api";
import { Crop } from "./Now";
import { SeaMap } from "./SeaMap";
import { fullTime, place, plural, proposal, verdict } from "./words";

const fold = (text: string) => text.trim().replace(/\s+/g, " ").toLowerCase();

/** Somebody may have typed the address. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** At most so many of an animal are shown; there are some hundreds of whales, and some are seen daily. */
const MOST = 1000;

export function Animals({ shown }: { shown: string | undefined }) {
  const [typed, setTyped] = useState("");
  const [provisional, setProvisional] = useState(false);
  const all = animals.value;
  const matching = all.filter((a) => fold(a.name).includes(fold(typed)) && (a.provisional || !provisional));
  const name = shown ? decoded(shown) : matching[0]?.name;
  const animal = all.find((a) => a.name === name);
  return (
    <div class="review animals">
      <aside class="queue" aria-label="Animals">
        <h1>Animals</h1>
        <label>
          Name
          <input type="search" value={typed} onInput={(event) => setTyped(event.currentTarget.value)} autocomplete="off" maxLength={100} />
        </label>
        <label class="switch">
          <input type="checkbox" checked={provisional} onChange={(event) => setProvisional(event.currentTarget.checked)} /> in no catalogue only
        </label>
        <p class="quiet" role="status">
          {plural(matching.length, "animal")}
        </p>
        <ol>
          {matching.map((a) => (
            <li key={a.name}>
              <a href={`#animals/${encodeURIComponent(a.name)}`} aria-current={a.name === name ? "true" : undefined}>
                {a.references > 0 ? <img src={`${referencesOf(a.name)}/0`} alt="" width="96" height="48" loading="lazy" /> : <span class="none">no photograph</span>}
                <span>
                  <strong>{a.name}</strong>
                  <small>{a.provisional ? "named here, in no catalogue" : plural(a.references, "photograph")}</small>
                </span>
              </a>
            </li>
          ))}
        </ol>
      </aside>
      {animal ? (
        <Sighted key={animal.name} animal={animal} />
      ) : (
        <p class="card quiet">
          {shown ? `No animal is called ${name}.` : "No animal has a name yet: start the station with --catalogue, or name one in Review."}
        </p>
      )}
    </div>
  );
}

function Sighted({ animal }: { animal: Animal }) {
  const [sightings, setSightings] = useState<Summary[] | null>(null);
  const [wrong, setWrong] = useState("");
  const made = decisionsMade.value;
  // One that arrives may be of this animal.
  const latest = recent.value[0];
  const arrived = latest && `${latest.id} ${latest.revision}`;
  useEffect(() => {
    let gone = false;
    ask<Summary[]>("GET", `/api/sightings?animal=${encodeURIComponent(animal.name)}&limit=${MOST}`).then(
      (answer) => {
        if (!gone) setSightings(answer);
      },
      (e: Error) => {
        if (!gone) setWrong(e.message);
      },
    );
    return () => {
      gone = true;
    };
  }, [animal.name, made, arrived]);
  const named = sightings?.filter((s) => s.standing) ?? [];
  const proposed = sightings?.filter((s) => !s.standing) ?? [];
  return (
    <div class="sighting">
      <h2>
        {animal.name} {animal.provisional && <small>named here, in no catalogue</small>}
      </h2>
      <Photographs animal={animal} />
      {wrong && (
        <p class="wrong" role="alert">
          {wrong}
        </p>
      )}
      {sightings && (
        <>
          <p>
            Confirmed by a person: {plural(named.length, "sighting")}. Proposed by the machine, and not decided on: {plural(proposed.length, "sighting")}.
            {sightings.length === MOST && <> These are the latest {MOST}.</>}
          </p>
          {sightings.some((s) => s.latitude != null) && (
            <SeaMap
              tracks={[]}
              sightings={sightings}
              aircraft={[]}
              open={(id) => {
                location.hash = `review/${id}`;
              }}
            />
          )}
          <InTime sightings={sightings} />
        </>
      )}
    </div>
  );
}

function Photographs({ animal }: { animal: Animal }) {
  if (animal.references === 0) return <p class="quiet">This station has no photographs of {animal.name}{!animal.provisional && ": start it with --catalogue"}.</p>;
  return (
    <ul class="photographs" aria-label={`Photographs of ${animal.name}`}>
      {Array.from({ length: animal.references }, (_, number) => (
        <li key={number}>
          <img src={`${referencesOf(animal.name)}/${number}`} alt={`${animal.name}, photograph ${number + 1}`} loading="lazy" width="256" height="128" />
        </li>
      ))}
    </ul>
  );
}

/** Day by day, the latest first. */
function InTime({ sightings }: { sightings: Summary[] }) {
  const days = useMemo(() => {
    const days = new Map<string, Summary[]>();
    for (const s of sightings) {
      const day = s.time.slice(0, 10);
      const of = days.get(day);
      if (of) of.push(s);
      else days.set(day, [s]);
    }
    return [...days];
  }, [sightings]);
  return (
    <>
      {days.map(([day, of]) => (
        <section key={day} class="arrivals" aria-label={`${day} UTC`}>
          <h3>
            {day} <small class="quiet">UTC · {plural(of.length, "sighting")}</small>
          </h3>
          <ol class="grid">
            {of.map((s) => {
              const { who, sure } = proposal(s);
              return (
                <li key={s.id}>
                  <a class="card arrival" href={`#review/${s.id}`}>
                    <Crop sighting={s} />
                    <div>
                      <p class="name">{s.standing ? verdict(s.standing) : who}</p>
                      <p>{s.standing ? <>by {s.standing.person}</> : sure}</p>
                      <p class="quiet">
                        {fullTime(s.time)} · {s.platform}
                      </p>
                      <p class="quiet">{place(s)}</p>
                    </div>
                  </a>
                </li>
              );
            })}
          </ol>
        </section>
      ))}
    </>
  );
}
