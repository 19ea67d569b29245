// The layer over the points: thumbnails, shapes of classes if there is room, class numbers, a ring, the lasso.
import { NONE, within } from "./points.js";

// Largest numbers of class shapes and of thumbnails, the side of a thumbnail on the screen (px), and the zoom at which thumbnails begin.
const MOST_SHAPES = 1500, MOST_THUMBNAILS = 400, SIDE = 56, ZOOMED = 2.5;
const SHAPES = ["circle", "square", "triangle", "diamond", "ring", "plus"].map((_, shape) => new Path2D([
  "M0-6a6 6 0 1 0 .01 0z", "M-5.3-5.3h10.6v10.6h-10.6z", "M0-7 7 5.5H-7z", "M0-7.5 7.5 0 0 7.5-7.5 0z",
  "M0-6.5a6.5 6.5 0 1 0 .01 0zM0-3.2a3.2 3.2 0 1 1-.01 0z", "M-2.2-7h4.4v4.8H7v4.4H2.2V7h-4.4V2.2H-7v-4.4h4.8z",
][shape]));

// classOf: the classes that are shown, by id.
export function overlay(canvas, p, map, classOf, thumbnails) {
  const pen = canvas.getContext("2d");
  const centre = new Map(map.classes.map((known) => [known.id, p.toPlace(known.x, known.y)]));
  let looked = { key: "", rows: null };

  function text(words, x, y, view) {
    pen.strokeStyle = view.page; pen.lineWidth = 4; pen.strokeText(words, x, y);
    pen.fillStyle = view.ink; pen.fillText(words, x, y);
  }
  // The visible galaxies, if there are few.
  function seen(view) {
    const key = [view.x, view.y, view.k, view.w, view.h].join();
    if (looked.key !== key) looked = { key, rows: view.k < ZOOMED * view.fitted && p.n > MOST_SHAPES ? null : within(p, ...view.seen(), MOST_SHAPES) };
    return looked.rows;
  }
  function shapes(rows, view, state) {
    for (const i of rows) {
      const own = classOf.get(p.label[i]);
      if (!own || (state.only && !state.only.has(own.id))) continue;
      const [x, y] = view.screen(p.xy[2 * i], p.xy[2 * i + 1]);
      pen.setTransform(view.dpr, 0, 0, view.dpr, x * view.dpr, y * view.dpr);
      pen.scale(0.8, 0.8);
      pen.fillStyle = view.colours[own.colour];
      pen.strokeStyle = view.page; pen.lineWidth = 1.5;
      pen.stroke(SHAPES[own.shape]); pen.fill(SHAPES[own.shape], "evenodd");
    }
    pen.setTransform(view.dpr, 0, 0, view.dpr, 0, 0);
  }
  // Thumbnails of the galaxies closest to the middle of the view come first. A galaxy whose thumbnail would cover another stays a dot.
  function images(rows, view, state) {
    const taken = [], middle = view.place(view.w / 2, view.h / 2);
    const far = (i) => (p.xy[2 * i] - middle[0]) ** 2 + (p.xy[2 * i + 1] - middle[1]) ** 2;
    for (const i of [...rows].sort((a, b) => far(a) - far(b))) {
      if (taken.length >= MOST_THUMBNAILS || !thumbnails.has(i)) continue;
      const [x, y] = view.screen(p.xy[2 * i], p.xy[2 * i + 1]);
      if (taken.some(([a, b]) => Math.abs(a - x) < SIDE * 0.7 && Math.abs(b - y) < SIDE * 0.7)) continue;
      const own = classOf.get(p.label[i]);
      if (!thumbnails.draw(pen, i, x - SIDE / 2, y - SIDE / 2, SIDE)) continue;
      taken.push([x, y]);
      pen.strokeStyle = own && p.label[i] !== NONE ? view.colours[own.colour] : view.soft;
      pen.lineWidth = own ? 2.5 : 1;
      pen.globalAlpha = state.only && !(own && state.only.has(own.id)) ? 0.4 : 1;
      pen.strokeRect(x - SIDE / 2, y - SIDE / 2, SIDE, SIDE);
      pen.globalAlpha = 1;
    }
  }
  // Numbers above the medians of the classes, in the order of the classes. A number that would cover another is left out.
  function numbers(view, state) {
    pen.font = "600 13px system-ui, sans-serif"; pen.textAlign = "center"; pen.textBaseline = "middle"; pen.lineJoin = "round";
    const taken = [];
    for (const known of classOf.values()) {
      if (state.only && !state.only.has(known.id)) continue;
      const [x, top] = view.screen(...centre.get(known.id)), y = top - 16, words = state.name(known.id);
      const half = pen.measureText(words).width / 2 + 6;
      if (x < 0 || y < 0 || x > view.w || y > view.h) continue;
      if (taken.some(([a, b, c]) => Math.abs(a - x) < half + c && Math.abs(b - y) < 18)) continue;
      taken.push([x, y, half]);
      text(words, x, y, view);
    }
  }
  function ring(row, view) {
    const [x, y] = view.screen(p.xy[2 * row], p.xy[2 * row + 1]);
    for (const [colour, width] of [[view.page, 6], [view.ink, 2.5]]) {
      pen.beginPath(); pen.arc(x, y, 12, 0, 7); pen.strokeStyle = colour; pen.lineWidth = width; pen.stroke();
    }
  }
  function lasso(line, view) {
    pen.beginPath();
    for (const at of line) pen.lineTo(...view.screen(...at));
    pen.closePath();
    pen.globalAlpha = 0.15; pen.fillStyle = view.accent; pen.fill("evenodd"); pen.globalAlpha = 1;
    pen.strokeStyle = view.accent; pen.lineWidth = 2; pen.setLineDash([6, 4]); pen.stroke(); pen.setLineDash([]);
  }
  // state: only (a set of classes or null), byClass, name(id), ringed (row or −1), line, still (nothing moves).
  return (view, state) => {
    canvas.width = view.w * view.dpr; canvas.height = view.h * view.dpr;
    pen.setTransform(view.dpr, 0, 0, view.dpr, 0, 0);
    const rows = seen(view);
    if (rows) { if (state.byClass) shapes(rows, view, state); if (rows.length <= MOST_THUMBNAILS && view.k > ZOOMED * view.fitted) images(rows, view, state); }
    numbers(view, state);
    if (state.ringed >= 0) ring(state.ringed, view);
    if (state.line) lasso(state.line, view);
  };
}
