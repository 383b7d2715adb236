// Writes public/coast.json: the land of the north-west Atlantic from Natural Earth (public domain) at 1:10 million, as rings
// of [longitude, latitude] in thousandths of a degree. Run by hand: npm run coast.
import { readFileSync, writeFileSync } from "node:fs";
import { feature } from "topojson-client";

const AREA = { west: -82, south: 24, east: -40, north: 58 };
/** Degrees; some 300 m. */
const TOLERANCE = 0.004;

const atlas = JSON.parse(readFileSync("node_modules/world-atlas/land-10m.json", "utf8"));
const land = feature(atlas, atlas.objects.land);

/** Cuts a ring at one edge (Sutherland and Hodgman). */
function cut(ring, inside, cross) {
  const kept = [];
  ring.forEach((point, i) => {
    const before = ring[(i + ring.length - 1) % ring.length];
    if (inside(point) !== inside(before)) kept.push(cross(before, point));
    if (inside(point)) kept.push(point);
  });
  return kept;
}

function clip(ring) {
  const at = (axis, value) => (a, b) => {
    const t = (value - a[axis]) / (b[axis] - a[axis]);
    const point = [a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])];
    point[axis] = value;
    return point;
  };
  ring = cut(ring, (p) => p[0] >= AREA.west, at(0, AREA.west));
  ring = cut(ring, (p) => p[0] <= AREA.east, at(0, AREA.east));
  ring = cut(ring, (p) => p[1] >= AREA.south, at(1, AREA.south));
  return cut(ring, (p) => p[1] <= AREA.north, at(1, AREA.north));
}

/** Douglas and Peucker. */
function simplify(points) {
  if (points.length < 3) return points;
  const [a, b] = [points[0], points.at(-1)];
  const length = Math.hypot(b[0] - a[0], b[1] - a[1]);
  let [far, at] = [0, 0];
  for (let i = 1; i < points.length - 1; i++) {
    const p = points[i];
    const away = length
      ? Math.abs((b[0] - a[0]) * (a[1] - p[1]) - (a[0] - p[0]) * (b[1] - a[1])) / length
      : Math.hypot(p[0] - a[0], p[1] - a[1]);
    if (away > far) [far, at] = [away, i];
  }
  if (far <= TOLERANCE) return [a, b];
  return [...simplify(points.slice(0, at + 1)).slice(0, -1), ...simplify(points.slice(at))];
}

const rings = [];
for (const { geometry } of land.features) {
  const polygons = geometry.type === "Polygon" ? [geometry.coordinates] : geometry.coordinates;
  for (const ring of polygons.flat()) {
    const clipped = clip(ring.slice(0, -1));
    if (clipped.length < 3) continue;
    const half = clipped.length >> 1;
    const simple = [...simplify(clipped.slice(0, half + 1)).slice(0, -1), ...simplify(clipped.slice(half))];
    if (simple.length < 3) continue;
    rings.push(simple.map(([x, y]) => [Math.round(x * 1000), Math.round(y * 1000)]));
  }
}
writeFileSync("public/coast.json", JSON.stringify(rings) + "\n");
console.log(`${rings.length} rings, ${rings.flat().length} points`);
