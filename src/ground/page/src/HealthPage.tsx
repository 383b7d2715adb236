import { aircraft, station, type Aircraft, type Health } from "./api";
import { ago, duration, fullTime, plural } from "./words";

/** How aircraft and station fare. */
export function HealthPage() {
  return (
    <div class="health">
      <h1>Health</h1>
      {aircraft.value.map((a) => (
        <AircraftHealth key={a.platform} aircraft={a} />
      ))}
      <StationHealth />
    </div>
  );
}

function AircraftHealth({ aircraft: a }: { aircraft: Aircraft }) {
  const h = a.health;
  return (
    <section class="card" aria-label={a.platform}>
      <h2>{a.platform}</h2>
      {!h && <p class="quiet">It has not said how it fares.</p>}
      {h && (
        <>
          <p class="quiet">
            callosity {h.programVersion}, up for {duration(h.uptimeSeconds)}; said {ago(h.time)}
          </p>
          {(h.problems ?? []).length === 0 ? (
            <p class="badge good">nothing is wrong</p>
          ) : (
            <ul class="problems">
              {h.problems!.map((p) => (
                <li key={p.part}>
                  <strong>{p.part}</strong>: {p.reason} <span class="quiet">since {ago(p.since)}</span>
                </li>
              ))}
            </ul>
          )}
          <div class="grid">
            <Cameras health={h} hasLanded={a.status?.status === "stopped"} />
            <Facts
              title="Frames"
              facts={[
                ["taken", h.frames.captured],
                ["looked at", h.frames.identified],
                ["heads found", h.frames.heads],
                ["dropped for lack of time", h.frames.dropped],
                ["could not be read", h.frames.failed],
                ["lost on the way from the camera", h.frames.lost],
              ]}
            />
            <Facts
              title="Outbox"
              facts={[
                ["sightings wait", h.queues.sightings],
                ["crops wait", h.queues.crops],
                ["set aside by the broker", h.queues.setAside],
                ["in memory alone, since the disk is full", h.queues.notDurable],
                ["delivered", h.link.acknowledged],
                ["connections after the first", h.link.reconnects],
              ]}
            />
            <Engine health={h} />
            <Facts title="Position and clock" facts={position(h)} />
            {h.hardware && <Facts title="Box" facts={hardware(h)} />}
            {h.archive && <Facts title="Archive" facts={archive(h)} />}
          </div>
        </>
      )}
    </section>
  );
}

function Cameras({ health: h, hasLanded }: { health: Health; hasLanded: boolean }) {
  return (
    <div>
      <h3>Cameras</h3>
      {(h.cameras ?? []).length === 0 && <p class="quiet">none said</p>}
      <dl>
        {(h.cameras ?? []).map((c) => (
          <>
            <dt>{c.name}</dt>
            <dd>
              {c.format ? <span class="badge good">open</span> : <span class={`badge ${hasLanded ? "" : "bad"}`}>closed</span>} {plural(c.captured, "frame")}
              {c.lastFrame && <>, the last {ago(c.lastFrame)}</>}
              {c.failures > 0 && <>; failed {plural(c.failures, "time")}</>}
              {c.lost > 0 && <>; lost {c.lost}</>}
            </dd>
          </>
        ))}
      </dl>
    </div>
  );
}

function Engine({ health: h }: { health: Health }) {
  const stages = Object.entries(h.stages);
  return (
    <div>
      <h3>Engine</h3>
      <p>{h.engine.name}</p>
      <p class="quiet">{h.engine.bundle}</p>
      <dl>
        {stages.map(([name, stage]) => (
          <>
            <dt>{name}</dt>
            <dd>
              {stage.meanMilliseconds.toFixed(0)} ms, at most {stage.maximumMilliseconds.toFixed(0)} ms
            </dd>
          </>
        ))}
      </dl>
    </div>
  );
}

function position(h: Health): [string, string | number | undefined][] {
  return [
    ["gpsd", h.position ? (h.position.connected ? "connected" : "cannot be reached") : "none"],
    ["age of the latest fix", h.position?.fixAgeSeconds == null ? undefined : `${h.position.fixAgeSeconds.toFixed(1)} s`],
    ["satellites", h.position?.satellites],
    ["time from", h.clock?.timeQuality],
    ["clock put right by", Math.abs(h.clock?.correctionSeconds ?? 0) >= 0.05 ? `${h.clock!.correctionSeconds.toFixed(1)} s` : undefined],
  ];
}

function hardware(h: Health): [string, string | number | undefined][] {
  const box = h.hardware;
  const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(bytes < 1e10 ? 1 : 0)} GB`;
  return [
    ...Object.entries(box?.temperaturesCelsius ?? {}).map(([sensor, celsius]): [string, string] => [sensor, `${celsius.toFixed(0)} °C`]),
    ["power mode", box?.powerMode],
    ["slowed down by over-current", box?.overCurrentEvents],
    ["processor clock", box?.processorClockShare == null ? undefined : `${Math.round(100 * box.processorClockShare)} % of what it can do`],
    ...(box?.disks ?? []).map((disk): [string, string] => [`free for ${disk.holds}`, `${gigabytes(disk.freeBytes)} of ${gigabytes(disk.totalBytes)}`]),
  ];
}

function archive(h: Health): [string, string | number | undefined][] {
  const a = h.archive ?? {};
  return [
    ["frames kept", a.frames],
    ["of which with a whale", a.whales],
    ["crops kept", a.crops],
    ["with a whale, and not kept", a.whalesLost],
  ];
}

function Facts({ title, facts }: { title: string; facts: [string, string | number | undefined][] }) {
  return (
    <div>
      <h3>{title}</h3>
      <dl>
        {facts.map(
          ([name, value]) =>
            value !== undefined && (
              <>
                <dt>{name}</dt>
                <dd>{typeof value === "number" ? value.toLocaleString("en") : value}</dd>
              </>
            ),
        )}
      </dl>
    </div>
  );
}

function StationHealth() {
  const s = station.value;
  if (!s) return null;
  return (
    <section class="card" aria-label="This station">
      <h2>This station</h2>
      <p class="quiet">callosity {s.programVersion}</p>
      {s.trouble ? <p class="wrong">It cannot store what arrives: {s.trouble}</p> : <p class="badge good">it stores what arrives</p>}
      <div class="grid">
        <Facts
          title="Stored"
          facts={[
            ["sightings", s.sightings],
            ["of which wait for review", s.waitForReview],
            ["messages on sightings since the start", s.sinceStart.sightings],
            ["messages on aircraft since the start", s.sinceStart.aircraft],
            ["came again and were dropped", s.sinceStart.repeated],
            ["made no sense and were set aside", s.setAsideCount],
          ]}
        />
      </div>
      {s.setAside.length > 0 && (
        <>
          <h3>Messages that make no sense</h3>
          <ul class="aside">
            {s.setAside.map((m) => (
              <li key={m.received + m.topic}>
                <strong>{m.topic}</strong> <span class="quiet">{fullTime(m.received)}</span>
                <p>{m.reason}</p>
                <code>{m.begins}</code>
              </li>
            ))}
          </ul>
        </>
      )}
    </section>
  );
}
