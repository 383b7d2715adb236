// Numbers, times and places in words.
import { clockAhead, now, type Standing, type Summary } from "./api";

/** That the animal is the candidate: its probability is given that the machine knows the animal. */
export const overall = (probability: number, unknown: number | null) => probability * (1 - (unknown ?? 0));

export function inHundred(probability: number): string {
  const n = Math.round(probability * 100);
  if (n >= 100) return "more than 99 in 100";
  return n < 1 ? "less than 1 in 100" : `about ${n} in 100`;
}

export function certainty(probability: number): string {
  if (probability >= 0.95) return "almost certain";
  if (probability >= 0.8) return "likely";
  if (probability >= 0.5) return "more likely than not";
  if (probability >= 0.2) return "doubtful";
  return "very doubtful";
}

export function notInCatalogue(probability: number | null): string {
  if (probability == null) return "not in the catalogue";
  const how = probability >= 0.95 ? "almost certainly" : probability >= 0.8 ? "probably" : probability >= 0.5 ? "perhaps" : "hardly";
  return `${how} not in the catalogue`;
}

/** What the machine makes of a sighting: who, and how sure. */
export function proposal(s: Summary): { who: string; sure: string; probability: number | null } {
  if (s.proposal === "unknown") {
    const unknown = s.unknownProbability;
    return {
      who: s.provisionalId ?? "unknown",
      sure: notInCatalogue(unknown),
      probability: unknown,
    };
  }
  if (!s.leading) return { who: "unnamed", sure: "no candidate", probability: null };
  const p = overall(s.leadingProbability ?? 0, s.unknownProbability);
  return { who: s.leading, sure: certainty(p), probability: p };
}

export function verdict(d: Pick<Standing, "verdict" | "animal" | "possible">): string {
  const perhaps = d.possible ? "possibly " : "";
  switch (d.verdict) {
    case "identified":
      return `${perhaps}${d.animal}`;
    case "notInCatalogue":
      return `${perhaps}${d.animal}, not in the catalogue`;
    case "notAWhale":
      return "not a whale";
    case "cannotTell":
      return "cannot tell";
    case "undone":
      return "undone";
  }
}

const two = (n: number) => String(n).padStart(2, "0");

/** 18:19:20 UTC, with the date where it is not today. */
export function time(text: string): string {
  const t = new Date(text);
  const clock = `${two(t.getUTCHours())}:${two(t.getUTCMinutes())}:${two(t.getUTCSeconds())} UTC`;
  const day = t.toISOString().slice(0, 10);
  return day === new Date(now.peek()).toISOString().slice(0, 10) ? clock : `${day} ${clock}`;
}

export function fullTime(text: string): string {
  return `${new Date(text).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** 12 s ago, by the station's clock. */
export function ago(text: string): string {
  const seconds = Math.max(0, Math.round((now.value + clockAhead.value - Date.parse(text)) / 1000));
  if (seconds < 120) return `${seconds} s ago`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

export function duration(seconds: number): string {
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function degrees(latitude: number, longitude: number): string {
  const one = (value: number, positive: string, negative: string) =>
    `${Math.abs(value).toFixed(4)}° ${value < 0 ? negative : positive}`;
  return `${one(latitude, "N", "S")} ${one(longitude, "E", "W")}`;
}

export function place(s: Summary): string {
  if (s.latitude == null || s.longitude == null) return "place not known";
  const around = s.uncertaintyMeters == null ? "" : ` ± ${s.uncertaintyMeters < 1000 ? `${Math.round(s.uncertaintyMeters)} m` : `${(s.uncertaintyMeters / 1000).toFixed(1)} km`}`;
  return degrees(s.latitude, s.longitude) + around;
}

export const watchInWords: Record<string, string> = {
  off: "off watch",
  transit: "in transit",
  online: "on line",
  circling: "circling",
  other: "other",
};

export const plural = (n: number, one: string, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
