// The sea, coast lines, tracks and sightings, in Mercator's projection. Everything is computed in double precision and drawn
// as SVG in pixels, so that a kilometre is as sharp as an ocean.
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Aircraft, Summary, Track } from "./api";
import { degrees, proposal, verdict } from "./words";

interface View {
  /** Centre, in degrees of the equator. */
  x: number;
  y: number;
  /** Pixels a degree. */
  scale: number;
}
interface Ring {
  points: [number, number][];
  west: number;
  east: number;
  south: number;
  north: number;
}

const projected = (latitude: number) => (Math.log(Math.tan(Math.PI / 4 + (latitude * Math.PI) / 360)) * 180) / Math.PI;
const latitudeOf = (y: number) => (Math.atan(Math.exp((y * Math.PI) / 180)) * 360) / Math.PI - 90;

/** Where surveys for right whales are flown. */
const HOME: View = { x: -67, y: projected(41), scale: 40 };
const [LEAST, MOST] = [8, 400_000];

let coast: Promise<Ring[]> | undefined;
function loadCoast(): Promise<Ring[]> {
  coast ??= fetch("./coast.json")
    .then((response) => response.json() as Promise<[number, number][][]>)
    .then((rings) =>
      rings.map((ring) => {
        const points = ring.map(([x, y]): [number, number] => [x / 1000, projected(y / 1000)]);
        const [xs, ys] = [points.map((p) => p[0]), points.map((p) => p[1])];
        return { points, west: Math.min(...xs), east: Math.max(...xs), south: Math.min(...ys), north: Math.max(...ys) };
      }),
    );
  return coast;
}

/** Around all that is to be seen. */
function around(places: [number, number][], width: number, height: number): View {
  if (places.length === 0) return HOME;
  const [xs, ys] = [places.map((p) => p[0]), places.map((p) => p[1])];
  const [west, east] = [Math.min(...xs), Math.max(...xs)];
  const [south, north] = [Math.min(...ys), Math.max(...ys)];
  // A kilometre at least.
  const span = Math.max((east - west) / width, (north - south) / height, 0.01 / Math.min(width, height));
  return { x: (west + east) / 2, y: (south + north) / 2, scale: Math.min(MOST, 0.8 / span) };
}

function scaleBar(view: View): { pixels: number; text: string } {
  const metres = 111_320 * Math.cos((latitudeOf(view.y) * Math.PI) / 180);
  const perPixel = metres / view.scale;
  const most = perPixel * 140;
  const power = 10 ** Math.floor(Math.log10(most));
  const length = [5, 2, 1].map((n) => n * power).find((n) => n <= most) ?? power;
  return { pixels: length / perPixel, text: length >= 1000 ? `${length / 1000} km` : `${length} m` };
}

export function SeaMap(props: { tracks: Track[]; sightings: Summary[]; aircraft: Aircraft[]; open: (id: string) => void }) {
  const box = useRef<HTMLDivElement>(null);
  const [size, setSize] = useState({ width: 600, height: 400 });
  const [rings, setRings] = useState<Ring[]>([]);
  const [chosen, setChosen] = useState<View | null>(null);
  const drag = useRef<{ x: number; y: number; view: View } | null>(null);
  useEffect(() => void loadCoast().then(setRings), []);
  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    const measure = () => setSize({ width: element.clientWidth || 600, height: element.clientHeight || 400 });
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  const { width, height } = size;
  const places = useMemo(() => {
    const all: [number, number][] = [];
    for (const track of props.tracks) for (const [, latitude, longitude] of track.points) all.push([longitude, projected(latitude)]);
    for (const s of props.sightings) if (s.latitude != null && s.longitude != null) all.push([s.longitude, projected(s.latitude)]);
    return all;
  }, [props.tracks, props.sightings]);
  const view = chosen ?? around(places, width, height);
  const px = (x: number) => (x - view.x) * view.scale + width / 2;
  const py = (y: number) => height / 2 - (y - view.y) * view.scale;
  const zoom = (factor: number, atX = width / 2, atY = height / 2) => {
    const scale = Math.min(MOST, Math.max(LEAST, view.scale * factor));
    const keep = (at: number, half: number) => (at - half) * (1 / view.scale - 1 / scale);
    setChosen({ x: view.x + keep(atX, width / 2), y: view.y - keep(atY, height / 2), scale });
  };
  const land = useMemo(() => {
    const half = { x: width / view.scale / 2, y: height / view.scale / 2 };
    let path = "";
    for (const ring of rings) {
      const outside = ring.east < view.x - half.x || ring.west > view.x + half.x || ring.north < view.y - half.y || ring.south > view.y + half.y;
      if (outside) continue;
      path += "M" + ring.points.map(([x, y]) => `${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join("L") + "Z";
    }
    return path;
  }, [rings, view.x, view.y, view.scale, width, height]);
  const wheel = (event: WheelEvent) => {
    event.preventDefault();
    const at = box.current!.getBoundingClientRect();
    zoom(event.deltaY < 0 ? 1.3 : 1 / 1.3, event.clientX - at.left, event.clientY - at.top);
  };
  const bar = scaleBar(view);
  const keys = (event: KeyboardEvent) => {
    const step = 60 / view.scale;
    const moves: Record<string, [number, number]> = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    const move = moves[event.key];
    if (move) setChosen({ ...view, x: view.x + move[0], y: view.y + move[1] });
    else if (event.key === "+") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else return;
    event.preventDefault();
  };
  return (
    <div class="map" ref={box}>
      <svg
        width={width}
        height={height}
        role="application"
        aria-label="Map of the survey. Arrow keys move it, plus and minus zoom."
        tabIndex={0}
        onKeyDown={keys}
        onWheel={wheel}
        onPointerDown={(event) => {
          if ((event.target as Element).closest(".dot")) return;
          drag.current = { x: event.clientX, y: event.clientY, view };
          (event.currentTarget as Element).setPointerCapture(event.pointerId);
        }}
        onPointerMove={(event) => {
          const from = drag.current;
          if (!from) return;
          setChosen({ ...from.view, x: from.view.x - (event.clientX - from.x) / from.view.scale, y: from.view.y + (event.clientY - from.y) / from.view.scale });
        }}
        onPointerUp={() => {
          drag.current = null;
        }}
      >
        <path class="land" d={land} />
        {props.tracks.map((track) => (
          <polyline key={track.flight} class="track" points={track.points.map(([, latitude, longitude]) => `${px(longitude).toFixed(1)},${py(projected(latitude)).toFixed(1)}`).join(" ")} />
        ))}
        {props.sightings.map((s) => {
          if (s.latitude == null || s.longitude == null) return null;
          const { who, sure } = proposal(s);
          const name = s.standing ? verdict(s.standing) : `${who}, ${sure}`;
          const [x, y] = [px(s.longitude), py(projected(s.latitude))];
          if (x < -20 || y < -20 || x > width + 20 || y > height + 20) return null;
          return (
            <g key={s.id} class={`dot ${s.standing ? "decided" : s.proposal}`} onClick={() => props.open(s.id)}>
              <title>{`${name} · ${degrees(s.latitude, s.longitude)}`}</title>
              <circle cx={x} cy={y} r={7} />
            </g>
          );
        })}
        {props.aircraft.map((a) => {
          if (!a.track) return null;
          const x = px(a.track.decimalLongitude);
          const y = py(projected(a.track.decimalLatitude));
          return (
            <g key={a.platform} class="plane" transform={`translate(${x.toFixed(1)} ${y.toFixed(1)})`}>
              <path transform={`rotate(${a.track.trackDegrees ?? 0})`} d="M0-13L3-4L13 2V5L3 3L2 9L5 12V14L0 12L-5 14V12L-2 9L-3 3L-13 5V2L-3-4Z" />
              <text x={16} y={5}>
                {a.platform}
              </text>
            </g>
          );
        })}
      </svg>
      <div class="zoom">
        <button aria-label="Zoom in" onClick={() => zoom(1.6)}>
          +
        </button>
        <button aria-label="Zoom out" onClick={() => zoom(1 / 1.6)}>
          −
        </button>
        {chosen && (
          <button aria-label="Show everything" onClick={() => setChosen(null)}>
            ⤢
          </button>
        )}
      </div>
      <div class="scale">
        <span style={{ width: `${bar.pixels}px` }} />
        {bar.text}
      </div>
      <p class="source">Coast: Natural Earth</p>
    </div>
  );
}
