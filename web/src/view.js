// The view of the map and the gestures that change it: drag, scroll, pinch, keys. Shift-drag or the lasso tool
// draws a line. A place (0 to 1) lies on the screen at x = place · k + view.x, counted from the lower left in CSS px.
const MAX_ZOOM = 20000, STEP = 60, CLICK = 5;

export class View {
  constructor(p) { Object.assign(this, { p, x: 0, y: 0, k: 1, w: 0, h: 0, dpr: 1, size: 2, fitted: 1, back: [1, 1, 1] }); }

  screen(x, y) { return [x * this.k + this.x, this.h - y * this.k - this.y]; }

  place(sx, sy) { return [(sx - this.x) / this.k, (this.h - sy - this.y) / this.k]; }

  // Corners of the visible part, as places: x0, y0, x1, y1.
  seen() { return [...this.place(0, this.h), ...this.place(this.w, 0)]; }

  resize(w, h) {
    const first = this.w < 2 || this.h < 2;
    if (!first) { this.x += (w - this.w) / 2; this.y += (h - this.h) / 2; }
    this.w = w; this.h = h; this.dpr = Math.min(window.devicePixelRatio || 1, 2);
    if (first) this.fit();
  }

  fit(rows = null) {
    let x0 = 0, y0 = 0, { wide, high } = this.p;
    if (rows && rows.length) {
      const middle = (axis) => { const v = rows.map((i) => this.p.xy[2 * i + axis]).sort((a, b) => a - b); return [v[v.length * 0.02 | 0], v[v.length * 0.98 | 0]]; };
      const [a, b] = middle(0), [c, d] = middle(1), pad = 0.6 * Math.max(b - a, d - c, 0.005);
      x0 = a - pad; wide = b - a + 2 * pad; y0 = c - pad; high = d - c + 2 * pad;
    }
    this.k = 0.94 * Math.min(this.w / Math.max(wide, 1e-6), this.h / Math.max(high, 1e-6));
    if (!rows) this.fitted = this.k;
    this.x = this.w / 2 - (x0 + wide / 2) * this.k; this.y = this.h / 2 - (y0 + high / 2) * this.k;
    this.measure();
  }

  zoom(factor, sx = this.w / 2, sy = this.h / 2) {
    const k = Math.max(this.fitted * 0.5, Math.min(this.fitted * MAX_ZOOM, this.k * factor)), f = k / this.k, up = this.h - sy;
    this.x = sx - (sx - this.x) * f; this.y = up - (up - this.y) * f; this.k = k;
    this.measure();
  }

  // Points grow slowly with the zoom, and are smaller where there are many.
  measure() { this.size = Math.min(9, Math.max(1, 2.6 * (this.k / this.fitted) ** 0.4 * Math.min(1, 60 / Math.sqrt(this.p.n) + 0.4))); }
}

const at = (element, event) => { const frame = element.getBoundingClientRect(); return [event.clientX - frame.left, event.clientY - frame.top]; };

// act: moved(), click(sx, sy, touch), hover(sx, sy), leave(), line(places, finished); lassoing(): whether a drag draws.
export function gestures(element, view, act) {
  const held = new Map();
  let travelled = 0, line = null;
  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    held.set(event.pointerId, event);
    if (held.size === 1) { travelled = 0; line = event.shiftKey || act.lassoing() ? [view.place(...at(element, event))] : null; } else line = null;
  });
  element.addEventListener("pointermove", (event) => {
    const before = held.get(event.pointerId);
    if (!before) { act.hover(...at(element, event)); return; }
    const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY, other = [...held.values()].find((pointer) => pointer.pointerId !== event.pointerId);
    travelled += Math.abs(dx) + Math.abs(dy);
    act.leave();
    if (line) { line.push(view.place(...at(element, event))); held.set(event.pointerId, event); act.line(line, false); return; }
    if (other) {
      const apart = (pointer) => Math.hypot(pointer.clientX - other.clientX, pointer.clientY - other.clientY), [ax, ay] = at(element, event), [bx, by] = at(element, other);
      view.zoom(apart(event) / Math.max(apart(before), 1), (ax + bx) / 2, (ay + by) / 2);
    }
    view.x += dx / held.size; view.y -= dy / held.size;
    held.set(event.pointerId, event);
    act.moved();
  });
  const release = (event) => {
    const click = held.size === 1 && travelled < CLICK && event.type === "pointerup", drawn = line;
    held.delete(event.pointerId);
    line = null;
    if (drawn && travelled >= CLICK) act.line(drawn, true);
    else if (click) act.click(...at(element, event), event.pointerType === "touch");
  };
  element.addEventListener("pointerup", release);
  element.addEventListener("pointercancel", release);
  element.addEventListener("pointerleave", () => act.leave());
  element.addEventListener("wheel", (event) => {
    event.preventDefault();
    view.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), ...at(element, event));
    act.moved();
  }, { passive: false });
  const keys = {
    "+": () => view.zoom(1.6), "=": () => view.zoom(1.6), "-": () => view.zoom(1 / 1.6), 0: () => view.fit(),
    ArrowLeft: () => { view.x += STEP; }, ArrowRight: () => { view.x -= STEP; }, ArrowUp: () => { view.y -= STEP; }, ArrowDown: () => { view.y += STEP; },
  };
  element.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
    act.moved();
  });
}
