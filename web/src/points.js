// The galaxies of a map: places, classes, and a grid to find neighbours. Rows are those of the table; "places" run from
// 0 to 1 over the longer side. The drawing order begins with galaxies in no class, so that classes are on top.
import { bytes } from "./columns.js";

export const NONE = 65535;

export function points(map) {
  const xy = new Float32Array(bytes(map.positions)), label = new Uint16Array(bytes(map.labels)), n = map.points;
  let x0 = Infinity, x1 = -Infinity, y0 = Infinity, y1 = -Infinity;
  for (let i = 0; i < n; i++) {
    x0 = Math.min(x0, xy[2 * i]); x1 = Math.max(x1, xy[2 * i]);
    y0 = Math.min(y0, xy[2 * i + 1]); y1 = Math.max(y1, xy[2 * i + 1]);
  }
  const span = Math.max(x1 - x0, y1 - y0, 1e-9), place = new Float32Array(2 * n), rows = new Uint32Array(n), drawn = new Uint32Array(n);
  for (let i = 0; i < n; i++) { xy[2 * i] = (xy[2 * i] - x0) / span; xy[2 * i + 1] = (xy[2 * i + 1] - y0) / span; }
  let k = 0;
  for (const inside of [false, true]) {
    for (let i = 0; i < n; i++) {
      if ((label[i] !== NONE) !== inside) continue;
      place[2 * k] = xy[2 * i]; place[2 * k + 1] = xy[2 * i + 1]; drawn[i] = k; rows[k++] = i;
    }
  }
  const toPlace = (x, y) => [(x - x0) / span, (y - y0) / span];
  return { n, xy, label, place, rows, drawn, wide: (x1 - x0) / span, high: (y1 - y0) / span, toPlace, grid: null };
}

// Rows by cell of a square grid, about eight galaxies to a cell.
function grid(p) {
  const side = Math.max(8, Math.min(1024, Math.round(Math.sqrt(p.n / 8))));
  const of = new Uint32Array(p.n), start = new Uint32Array(side * side + 1), rows = new Uint32Array(p.n);
  const cell = (value) => Math.min(side - 1, (value * side) | 0);
  for (let i = 0; i < p.n; i++) { of[i] = cell(p.xy[2 * i + 1]) * side + cell(p.xy[2 * i]); start[of[i] + 1]++; }
  for (let c = 0; c < side * side; c++) start[c + 1] += start[c];
  const next = start.slice();
  for (let i = 0; i < p.n; i++) rows[next[of[i]]++] = i;
  return { side, start, rows };
}

// Rows in a rectangle of places, or null if there are more than `most`.
export function within(p, x0, y0, x1, y1, most = Infinity) {
  p.grid = p.grid || grid(p);
  const { side, start, rows } = p.grid, hits = [];
  const cell = (value) => Math.max(0, Math.min(side - 1, Math.floor(value * side)));
  for (let cy = cell(y0); cy <= cell(y1); cy++) {
    for (let k = start[cy * side + cell(x0)]; k < start[cy * side + cell(x1) + 1]; k++) {
      const i = rows[k], x = p.xy[2 * i], y = p.xy[2 * i + 1];
      if (x < x0 || x > x1 || y < y0 || y > y1) continue;
      if (hits.length >= most) return null;
      hits.push(i);
    }
  }
  return hits;
}

export function nearest(p, x, y, reach) {
  let best = -1, closest = reach * reach;
  for (const i of within(p, x - reach, y - reach, x + reach, y + reach)) {
    const dx = p.xy[2 * i] - x, dy = p.xy[2 * i + 1] - y, d = dx * dx + dy * dy;
    // If two galaxies are equally near, take the one in a class, because it is on top.
    if (d < closest || (d === closest && p.label[i] !== NONE)) { closest = d; best = i; }
  }
  return best;
}

// Rows inside a closed line of places [[x, y], …], by the even-odd rule.
export function inside(p, line) {
  const xs = line.map((at) => at[0]), ys = line.map((at) => at[1]);
  const candidates = within(p, Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys));
  return candidates.filter((i) => {
    const x = p.xy[2 * i], y = p.xy[2 * i + 1];
    let odd = false;
    for (let a = 0, b = line.length - 1; a < line.length; b = a++) {
      if (ys[a] > y !== ys[b] > y && x < (xs[b] - xs[a]) * (y - ys[a]) / (ys[b] - ys[a]) + xs[a]) odd = !odd;
    }
    return odd;
  });
}

export function members(p, ids) {
  const wanted = new Set(ids), rows = [];
  for (let i = 0; i < p.n; i++) if (wanted.has(p.label[i])) rows.push(i);
  return rows;
}
