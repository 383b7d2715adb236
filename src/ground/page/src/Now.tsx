import { useEffect, useRef, useState } from "preact/hooks";
import { aircraft, ask, mayDecide, now, picture, recent, tracks, type Aircraft, type Summary } from "./api";
import { SeaMap } from "./SeaMap";
import { ago, fullTime, inHundred, place, plural, proposal, time, verdict, watchInWords } from "./words";

const open = (id: string) => {
  location.hash = `review/${id}`;
};

/** What is happening. */
export function Now() {
  return (
    <div class="now">
      <h1 class="hidden">Now</h1>
      <div class="left">
        <section class="fleet" aria-label="Aircraft">
          {aircraft.value.length === 0 && (
            <p class="card quiet">No aircraft was heard yet. One that sends to this station's broker shows up here by itself.</p>
          )}
          {aircraft.value.map((a) => (
            <AircraftCard key={a.platform} aircraft={a} />
          ))}
        </section>
        <SeaMap tracks={tracks.value} sightings={recent.value} aircraft={aircraft.value} open={open} />
      </div>
      <Arrivals />
    </div>
  );
}

function presence(a: Aircraft): [string, string] {
  switch (a.status?.status) {
    case "online":
      return ["good", "online"];
    case "offline":
      return ["bad", "link lost"];
    case "stopped":
      return ["quiet", "landed: everything is delivered"];
    default:
      return ["quiet", "heard, and says nothing of itself"];
  }
}

function AircraftCard({ aircraft: a }: { aircraft: Aircraft }) {
  const [wrong, setWrong] = useState("");
  const [kind, said] = presence(a);
  const weather = a.effort?.weather;
  const problems = a.health?.problems ?? [];
  const set = async (effort: object) => {
    setWrong("");
    try {
      await ask("POST", `/api/aircraft/${encodeURIComponent(a.platform)}/effort`, { effort });
    } catch (e) {
      setWrong((e as Error).message);
    }
  };
  const watch = a.effort?.watch ?? "";
  return (
    <article class="card aircraft">
      <h2>
        {a.platform} <span class={`badge ${kind}`}>{said}</span>
      </h2>
      <p>
        {a.heard ? <>heard {ago(a.heard)}</> : "not heard since this station began"}
        {a.track?.altitudeMeters != null && <> · {Math.round(a.track.altitudeMeters)} m up</>}
        {a.track?.speedMetersPerSecond != null && <> · {Math.round(a.track.speedMetersPerSecond * 1.9438)} knots</>}
      </p>
      {a.effort && (
        <p>
          <strong>{watchInWords[watch] ?? watch}</strong>
          {weather?.beaufort != null && <> · Beaufort {weather.beaufort}</>}
          {weather?.visibilityKilometers != null && <> · sees {weather.visibilityKilometers} km</>}
          {a.effort.observers && a.effort.observers.length > 0 && <> · {a.effort.observers.join(", ")}</>}
        </p>
      )}
      {a.effort && mayDecide.value && a.status?.status === "online" && (
        <p class="row">
          <label>
            Watch{" "}
            <select value={watch} onChange={(event) => void set({ watch: event.currentTarget.value })}>
              {["off", "transit", "online", "circling"].map((w) => (
                <option key={w} value={w}>
                  {watchInWords[w]}
                </option>
              ))}
            </select>
          </label>
          {a.asked?.state === "waiting" && <span class="quiet">asked {ago(a.asked.since)}, waits for the aircraft's answer</span>}
          {a.asked?.state === "givenUp" && <span class="wrong">the aircraft did not answer</span>}
        </p>
      )}
      {problems.length > 0 && (
        <p class="wrong">
          <a href="#health">{plural(problems.length, "problem")}</a>: {problems.map((p) => p.part).join(", ")}
        </p>
      )}
      {wrong && (
        <p class="wrong" role="alert">
          {wrong}
        </p>
      )}
    </article>
  );
}

/** Sightings as they arrive. The list stands still while somebody points at it or is in it by keyboard. */
function Arrivals() {
  const [held, setHeld] = useState<Summary[] | null>(null);
  const [loud, setLoud] = useState(false);
  const told = useRef<Set<string> | null>(null);
  const all = recent.value;
  useEffect(() => {
    const before = told.current;
    told.current = new Set(all.map((s) => s.id));
    if (loud && before && all.some((s) => !before.has(s.id) && s.proposal === "unknown")) beep();
  }, [all, loud]);
  const shown = held ?? all;
  const known = new Set(shown.map((s) => s.id));
  const fresh = held ? all.filter((s) => !known.has(s.id)).length : 0;
  return (
    <section
      class="arrivals"
      aria-label="Sightings as they arrive"
      onPointerEnter={() => setHeld(recent.peek())}
      onPointerLeave={() => setHeld(null)}
      onFocusIn={() => setHeld((h) => h ?? recent.peek())}
      onFocusOut={(event) => {
        if (!event.currentTarget.contains(event.relatedTarget as Node | null)) setHeld(null);
      }}
    >
      <div class="heading">
        <h2>Sightings</h2>
        <label class="switch">
          <input type="checkbox" checked={loud} onChange={(event) => setLoud(event.currentTarget.checked)} /> sound for unknown whales
        </label>
      </div>
      {fresh > 0 && (
        <button class="fresh" onClick={() => setHeld(recent.peek())}>
          {plural(fresh, "new sighting")}: show
        </button>
      )}
      {shown.length === 0 && <p class="card quiet">Nothing was sighted yet.</p>}
      <ol>
        {shown.map((s) => (
          <li key={s.id}>
            <Arrival sighting={s} />
          </li>
        ))}
      </ol>
    </section>
  );
}

function Arrival({ sighting: s }: { sighting: Summary }) {
  const { who, sure, probability } = proposal(s);
  const young = now.value - Date.parse(s.time) < 60_000;
  return (
    <a class={`card arrival ${young ? "young" : ""}`} href={`#review/${s.id}`}>
      <Crop sighting={s} />
      <div>
        <p class="name">
          {s.standing ? verdict(s.standing) : who} {s.standing && <span class="badge good">decided</span>}
          {!s.standing && s.proposal === "unknown" && <span class="badge new">unknown</span>}
        </p>
        <p>
          {s.standing ? <>by {s.standing.person}</> : sure}
          {!s.standing && probability != null && <span class="quiet"> · right in {inHundred(probability)}</span>}
        </p>
        <p class="quiet" title={fullTime(s.time)}>
          {time(s.time)} · {s.platform}
          {s.camera && <> {s.camera}</>}
        </p>
        <p class="quiet">{place(s)}</p>
      </div>
    </a>
  );
}

/** The head as the aircraft cut it out. */
export function Crop({ sighting: s }: { sighting: Summary }) {
  return s.crop ? (
    <img class="crop" src={picture(s.crop)} alt="" loading="lazy" width="512" height="256" />
  ) : (
    <span class="crop none">no picture yet</span>
  );
}

function beep() {
  const audio = new AudioContext();
  const tone = audio.createOscillator();
  const volume = audio.createGain();
  volume.gain.value = 0.08;
  tone.frequency.value = 660;
  tone.connect(volume).connect(audio.destination);
  tone.start();
  tone.stop(audio.currentTime + 0.25);
}
