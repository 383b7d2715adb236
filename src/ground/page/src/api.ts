// What the ground station answers, and what is known of it at the moment.
import { batch, computed, signal } from "@preact/signals";

export type Role = "observer" | "reviewer" | "administrator";
export interface Account {
  name: string;
  role: Role;
}
export type Verdict = "identified" | "notInCatalogue" | "notAWhale" | "cannotTell" | "undone";
export interface Standing {
  verdict: Verdict;
  animal: string | null;
  possible: boolean;
  person: string;
  made: string;
}
export interface Decided extends Standing {
  number: number;
  revision: number;
  note: string | null;
}
export interface Summary {
  id: string;
  revision: number;
  platform: string;
  flight: string | null;
  camera: string | null;
  time: string;
  state: string;
  framesSeen: number | null;
  latitude: number | null;
  longitude: number | null;
  uncertaintyMeters: number | null;
  proposal: "identified" | "uncertain" | "unknown" | "other";
  leading: string | null;
  leadingProbability: number | null;
  unknownProbability: number | null;
  provisionalId: string | null;
  doubt: number;
  crop: string | null;
  decisions: number;
  standing: Standing | null;
}
export interface Candidate {
  organismID: string;
  probability: number;
}
export interface Details {
  summary: Summary;
  message: {
    candidates: Candidate[];
    identifiedBy: string;
    timeQuality?: string;
    frame: { number: number; file?: string; widthPixels: number; heightPixels: number; damaged?: string; incomplete?: { shareRead: number } };
    head: { headLengthPixels: number; confidence: number };
    altitudeMeters?: number;
    fixAgeSeconds?: number;
    headLengthMeters?: number;
    headLengthUncertaintyMeters?: number;
  };
  revisions: number;
  crops: string[];
  history: Decided[];
}
export interface CameraHealth {
  name: string;
  format?: string;
  captured: number;
  lost: number;
  failures: number;
  lastFrame?: string;
}
export interface Health {
  time: string;
  programVersion: string;
  uptimeSeconds: number;
  frames: Record<string, number>;
  cameras?: CameraHealth[];
  lastFailure?: { time: string; camera?: string; frame: number; file?: string; reason: string };
  queues: Record<string, number>;
  engine: { name: string; bundle: string; networks?: { network: string; engine: string }[] };
  stages: Record<string, { meanMilliseconds: number; maximumMilliseconds: number; frames: number }>;
  link: Record<string, number>;
  clock?: { timeQuality: string; correctionSeconds: number };
  position?: { connected: boolean; fixAgeSeconds?: number; satellites?: number };
  problems?: { part: string; reason: string; since: string }[];
  hardware?: {
    temperaturesCelsius?: Record<string, number>;
    powerMode?: string;
    overCurrentEvents?: number;
    processorClockShare?: number;
    disks?: { holds: string; freeBytes: number; totalBytes: number }[];
  };
  archive?: Record<string, number>;
}
export interface Effort {
  watch: string;
  time: string;
  observers?: string[];
  project?: string;
  aircraft?: string;
  weather?: { beaufort?: number; visibilityKilometers?: number; cloudPercent?: number };
}
export interface Aircraft {
  platform: string;
  heard: string | null;
  status: { status: "online" | "offline" | "stopped" | "other"; time: string; programVersion: string } | null;
  health: Health | null;
  track: { time: string; decimalLatitude: number; decimalLongitude: number; altitudeMeters?: number; speedMetersPerSecond?: number; trackDegrees?: number } | null;
  effort: Effort | null;
  asked: { since: string; state: "waiting" | "answered" | "givenUp" } | null;
}
export interface Track {
  flight: string;
  platform: string;
  points: [number, number, number][];
}
export interface Animal {
  name: string;
  provisional: boolean;
  references: number;
}
export interface Station {
  programVersion: string;
  sightings: number;
  waitForReview: number;
  setAside: { topic: string; reason: string; contentType: string | null; begins: string; received: string }[];
  setAsideCount: number;
  trouble: string | null;
  sinceStart: Changes;
}
interface Changes {
  sightings: number;
  aircraft: number;
  setAside: number;
  decisions: number;
  repeated: number;
}

/** An answer that is none. */
export class Failure extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly history: Decided[] | null,
  ) {
    super(message);
  }
}

export async function ask<T>(method: string, path: string, body?: unknown): Promise<T> {
  let response: Response;
  try {
    response = await fetch(path, {
      method,
      ...(body === undefined ? {} : { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }),
    });
  } catch {
    throw new Failure(0, "the ground station does not answer", null);
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer as T;
  if (response.status === 401 && path !== "/api/session") account.value = null;
  throw new Failure(response.status, answer.error ?? `the ground station answers ${response.status}`, answer.history ?? null);
}

/** Who uses the page; `undefined` as long as that is not known. */
export const account = signal<Account | null | undefined>(undefined);
export const accountsAreNeeded = signal(true);
export const mayDecide = computed(() => account.value != null && account.value.role !== "observer");
export const mayManage = computed(() => account.value?.role === "administrator");

export const isConnected = signal(true);
export const aircraft = signal<Aircraft[]>([]);
export const tracks = signal<Track[]>([]);
export const recent = signal<Summary[]>([]);
export const queue = signal<Summary[]>([]);
export const animals = signal<Animal[]>([]);
export const station = signal<Station | null>(null);
/** Counts decisions of everybody, so that what is shown of them is asked for again. */
export const decisionsMade = signal(0);
/** The station's clock less this machine's, in milliseconds. */
export const clockAhead = signal(0);
/** Moves on each second. */
export const now = signal(Date.now());

export const RECENT = 200;
export const QUEUE = 200;

/** What is being asked for, and whether it has to be asked for again after that. */
const asking = new Map<string, boolean>();

async function refresh(name: string, load: () => Promise<void>): Promise<void> {
  if (asking.has(name)) {
    asking.set(name, true);
    return;
  }
  asking.set(name, false);
  try {
    do {
      asking.set(name, false);
      await load();
    } while (asking.get(name));
  } catch (e) {
    if (!(e instanceof Failure)) throw e;
  } finally {
    asking.delete(name);
  }
}

export const loadSightings = () =>
  refresh("sightings", async () => {
    const [latest, waiting] = await Promise.all([
      ask<Summary[]>("GET", `/api/sightings?limit=${RECENT}`),
      ask<Summary[]>("GET", `/api/sightings?order=review&limit=${QUEUE}`),
    ]);
    batch(() => {
      recent.value = latest;
      queue.value = waiting;
    });
  });
export const loadAircraft = () =>
  refresh("aircraft", async () => {
    const [answer, where] = await Promise.all([
      ask<{ time: string; aircraft: Aircraft[] }>("GET", "/api/aircraft"),
      ask<Track[]>("GET", "/api/tracks"),
    ]);
    batch(() => {
      clockAhead.value = Date.parse(answer.time) - Date.now();
      aircraft.value = answer.aircraft;
      tracks.value = where;
    });
  });
export const loadAnimals = () =>
  refresh("animals", async () => {
    animals.value = await ask<Animal[]>("GET", "/api/animals");
  });
export const loadStation = () =>
  refresh("station", async () => {
    station.value = await ask<Station>("GET", "/api/station");
  });

let events: EventSource | null = null;

/** From now on what changes is shown without anybody asking. */
export function follow(): void {
  events?.close();
  let known: Changes | null = null;
  events = new EventSource("/api/events");
  events.onopen = () => {
    isConnected.value = true;
    known = null;
  };
  events.onerror = () => {
    isConnected.value = false;
    // Where the session has ended, this says so.
    void ask<{ account: Account | null }>("GET", "/api/session")
      .then((session) => {
        if (!session.account) account.value = null;
      })
      .catch(() => {});
  };
  events.onmessage = (event) => {
    const changes = JSON.parse(event.data) as Changes;
    const before = known;
    known = changes;
    const changed = (name: keyof Changes) => !before || before[name] !== changes[name];
    if (changed("sightings") || changed("decisions")) void loadSightings();
    if (changed("aircraft")) void loadAircraft();
    if (changed("decisions")) {
      void loadAnimals();
      decisionsMade.value++;
    }
    void loadStation();
  };
}

export function unfollow(): void {
  events?.close();
  events = null;
}

export async function enter(): Promise<void> {
  const session = await ask<{ account: Account | null; accountsAreNeeded: boolean }>("GET", "/api/session");
  batch(() => {
    accountsAreNeeded.value = session.accountsAreNeeded;
    account.value = session.account;
  });
}

setInterval(() => {
  now.value = Date.now();
}, 1000);

export const picture = (name: string) => `/api/pictures/${name}`;
export const referencesOf = (animal: string) => `/api/animals/${encodeURIComponent(animal)}/references`;
