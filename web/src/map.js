// A map in a box of the page: points, labels over them, gestures, colours.
import { values } from "./columns.js";
import { emulated, library, MISSING, pixels } from "./painters.js";
import { inside, members, nearest, NONE, points, within } from "./points.js";
import { overlay } from "./overlay.js";
import { thumbnails } from "./thumbnails.js";
import { gestures, View } from "./view.js";

const NEAR = 9, LEVELS = 250;
const dark = matchMedia("(prefers-color-scheme: dark)");
const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255);

function painter(canvas, p) {
  const wanted = new URLSearchParams(location.search).get("painter");
  return ((wanted ? wanted === "library" : !emulated()) && library(canvas, p)) || pixels(canvas, p);
}

// Colours between the stops of a scale, t from 0 to 1.
function between(stops, t) {
  const at = Math.min(t * (stops.length - 1), stops.length - 1 - 1e-9), i = Math.floor(at);
  return stops[i].map((low, c) => low + (stops[i + 1][c] - low) * (at - i));
}

// act: chosen(row or −1, class id or −1), line(rows), name(id), moved(). fixed: a class that is always marked, or −1.
export function mapIn(box, map, act, fixed = -1) {
  const canvas = box.querySelector(".points"), over = box.querySelector(".labels"), tip = box.querySelector(".tip");
  const p = points(map), view = new View(p), paint = painter(canvas, p), classOf = new Map(map.classes.map((known) => [known.id, known]));
  // Classes that are shown: the galaxies of the others look like galaxies in no class.
  const images = thumbnails(map, () => redraw());
  const above = overlay(over, p, map, classOf, images);
  const state = { only: fixed < 0 ? null : new Set([fixed]), byClass: true, name: act.name || String, ringed: -1, line: null };
  let waiting = false, lasso = false, column = null, shown = null, picked = null;

  function redraw() { if (!waiting) { waiting = true; requestAnimationFrame(frame); } }
  function frame() {
    waiting = false;
    if (view.w < 2 || view.h < 2) return;
    paint.paint(view);
    above(view, state);
    if (act.moved) act.moved();
  }
  const colour = (name) => getComputedStyle(box).getPropertyValue(`--${name}`).trim();
  function theme() {
    view.colours = Array.from({ length: 8 }, (_, i) => colour(`class-${i}`));
    Object.assign(view, { ink: colour("ink"), page: colour("panel"), soft: colour("soft"), accent: colour("accent"), point: colour("point") });
    view.back = rgb(view.page);
    recolour();
  }
  function codes() {
    const out = new Uint8Array(p.n);
    for (let k = 0; k < p.n; k++) {
      const row = p.rows[k], own = shown ? null : classOf.get(p.label[row]);
      if (!shown) out[k] = own ? own.colour : MISSING;
      else if (Number.isNaN(shown[row])) out[k] = MISSING;
      else if (column.kind === "category") out[k] = Math.min(shown[row], 8);
      else out[k] = LEVELS * Math.max(0, Math.min(1, (shown[row] - column.low) / Math.max(column.high - column.low, 1e-30)));
    }
    return out;
  }
  // Leaves out the end of the scale that has nearly the colour of the page.
  const scale = (t) => between(map.ramp.map(rgb), (dark.matches ? 0.12 : 0) + 0.88 * Math.min(t, 1));
  function table() {
    const grey = rgb(view.point), last = view.colours.map(rgb);
    const colourOf = (i) => (i === MISSING ? grey : !shown || column.kind === "category" ? last[i] || grey : scale(i / LEVELS));
    return Array.from({ length: 256 }, (_, i) => colourOf(i));
  }
  function recolour() {
    state.byClass = !shown;
    paint.recolour(codes(), table()).then(redraw);
    redraw();
  }
  const drawn = (rows) => Uint32Array.from(rows, (row) => p.drawn[row]).sort();
  function mark() {
    paint.active(picked ? drawn(picked) : state.only ? drawn(members(p, [...state.only])) : null);
    redraw();
  }
  function at(sx, sy, touch) {
    const row = nearest(p, ...view.place(sx, sy), (touch ? 2 : 1) * NEAR / view.k);
    return { row, own: row < 0 || p.label[row] === NONE ? null : classOf.get(p.label[row]) };
  }
  function hover(sx, sy) {
    const { row, own } = at(sx, sy, false);
    tip.hidden = row < 0 || (!own && !act.chosen);
    over.classList.toggle("over", !tip.hidden);
    if (tip.hidden) return;
    const value = shown && column ? ` · ${column.label}: ${worded(shown[row])}` : "";
    tip.textContent = (own ? `${state.name(own.id) === String(own.id) ? `class ${own.id}` : state.name(own.id)} · ${own.size.toLocaleString("en")} galaxies` : p.label[row] === NONE ? "in no class" : "in a hidden candidate") + value;
    tip.style.left = `${Math.max(0, Math.min(sx + 14, view.w - tip.offsetWidth - 6))}px`;
    tip.style.top = `${Math.max(sy - 36, 6)}px`;
  }
  function worded(value) {
    if (Number.isNaN(value)) return "unknown";
    return column.kind === "category" ? column.names[value] || "other" : Number(value.toPrecision(4)).toString();
  }
  gestures(over, view, {
    moved: redraw, hover, leave: () => { tip.hidden = true; }, lassoing: () => lasso && !!act.line,
    click: (sx, sy, touch) => {
      hover(sx, sy);
      const { row, own } = at(sx, sy, touch);
      if (act.chosen) act.chosen(row, own ? own.id : -1);
      else if (own && own.id !== fixed) window.location.href = own.page;
    },
    line: (line, finished) => {
      if (!act.line) return;
      state.line = finished ? null : line;
      if (finished) act.line(inside(p, line));
      redraw();
    },
  });
  const tools = {
    in: () => view.zoom(1.6), out: () => view.zoom(1 / 1.6), all: () => view.fit(), class: () => view.fit(members(p, [fixed])),
    lasso: (button) => { lasso = !lasso; button.setAttribute("aria-pressed", lasso); over.classList.toggle("lasso", lasso); },
    view: () => act.line(within(p, ...view.seen())),
  };
  box.querySelectorAll("[data-tool]").forEach((button) => button.addEventListener("click", () => { tools[button.dataset.tool](button); redraw(); }));
  dark.addEventListener("change", theme);
  new ResizeObserver(() => { view.resize(box.clientWidth, box.clientHeight); redraw(); }).observe(box);
  view.resize(box.clientWidth, box.clientHeight);
  theme();
  if (state.only) mark();

  return {
    p, view, images, redraw, frame, painter: paint.name, drawn: paint.drawn, worded,
    // Marked classes, or null for none; or marked rows instead of classes.
    only: (ids) => { state.only = ids && ids.length ? new Set(ids) : fixed < 0 ? null : new Set([fixed]); picked = null; mark(); },
    pick: (rows) => { picked = rows && rows.length ? rows : null; state.only = null; mark(); },
    // Shows only some classes.
    keep: (ids) => {
      classOf.clear();
      for (const known of map.classes) if (ids.includes(known.id)) classOf.set(known.id, known);
      recolour();
    },
    ring: (row) => { state.ringed = row; redraw(); },
    inside: (line) => inside(p, line),
    show: (rows) => { view.fit(rows); redraw(); },
    ramp: () => `linear-gradient(to right, ${[0, 0.25, 0.5, 0.75, 1].map((t) => `rgb(${scale(t).map((channel) => Math.round(255 * channel)).join(" ")})`).join(", ")})`,
    async colourBy(next) {
      shown = next ? await values(next) : null;
      column = next;
      recolour();
    },
  };
}
