// Two ways to paint the points, with the same interface: paint(view), recolour(codes, colours), active(drawn | null).
// codes: one of 256 colours for each point in drawing order. colours: [[r, g, b], …], 0 to 1.
import createScatterplot from "regl-scatterplot";

export const MISSING = 255;
const FADED = 0.2;

// Whether WebGL would run on the processor (no graphics card, a remote desktop), many times slower than pixels().
export function emulated() {
  const gl = document.createElement("canvas").getContext("webgl"), about = gl && gl.getExtension("WEBGL_debug_renderer_info");
  return !gl || !!about && /swiftshader|llvmpipe|softpipe|software|basic render/i.test(gl.getParameter(about.UNMASKED_RENDERER_WEBGL));
}

const hex = (rgb) => "#" + rgb.map((channel) => Math.round(255 * channel).toString(16).padStart(2, "0")).join("");

// With a graphics card. The library only draws; this page itself handles the view and the pointer (view.js),
// so that both painters behave in the same way.
export function library(canvas, p) {
  const plot = createScatterplot({
    canvas, width: 300, height: 150, aspectRatio: 1, cameraIsFixed: true, showReticle: false, deselectOnDblClick: false,
    deselectOnEscape: false, pointScaleMode: "constant", opacityInactiveMax: FADED, opacityInactiveScale: 1,
    pointOutlineWidth: 0, pointSizeSelected: 1, spatialIndexUseWorker: true, backgroundColor: [0, 0, 0, 0], opacity: 0.9,
  });
  if (!plot.get("isSupported") && !plot.isSupported) { plot.destroy(); return null; }
  let ready = Promise.resolve(), size = [0, 0], last = null, chosen = null;
  const x = new Float32Array(p.n), y = new Float32Array(p.n);
  for (let i = 0; i < p.n; i++) { x[i] = p.place[2 * i]; y[i] = p.place[2 * i + 1]; }
  function paint(view) {
    last = view;
    if (size[0] !== view.w || size[1] !== view.h) { size = [view.w, view.h]; plot.set({ width: view.w, height: view.h }); }
    const aspect = view.w / view.h;
    plot.set({
      pointSize: 1.4 * view.size,
      cameraView: new Float32Array([
        2 * view.k / view.h, 0, 0, 0, 0, 2 * view.k / view.h, 0, 0, 0, 0, 1, 0,
        (2 * view.x / view.w - 1) * aspect, 2 * view.y / view.h - 1, 0, 1,
      ]),
    });
  }
  function active(drawn) {
    // The library needs a plain array, not a typed one.
    chosen = drawn && Array.from(drawn);
    ready = ready.then(() => (chosen ? plot.select(chosen, { preventEvent: true }) : plot.deselect({ preventEvent: true })));
  }
  function recolour(codes, colours) {
    ready = ready.then(async () => {
      const table = colours.map(hex);
      plot.set({ colorBy: "valueA", pointColor: table, pointColorActive: table, pointColorHover: table });
      await plot.draw({ x, y, z: Float32Array.from(codes) }, { zDataType: "categorical", spatialIndex: plot.get("spatialIndex") || undefined });
      if (chosen) plot.select(chosen, { preventEvent: true });
      if (last) paint(last);
    });
    return ready;
  }
  return { name: "library", paint, recolour, active, drawn: () => ready };
}

// Where each row of a disc begins and ends, for every side in px.
const DISCS = Array.from({ length: 32 }, (_, side) => Int32Array.from({ length: 2 * side }, (_, i) => {
  const off = (i >> 1) + 0.5 - side / 2, half = side < 4 ? side / 2 : Math.max(0.5, Math.sqrt(Math.max(side * side / 4 - off * off, 0)));
  return Math.round(side / 2 - half) + (i % 2 ? Math.round(2 * half) : 0);
}));

// Without a graphics card: draws squares and discs directly into the pixels of a 2-D canvas.
export function pixels(canvas, p) {
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  let codes = new Uint8Array(p.n), colours = [[0.5, 0.5, 0.5]], chosen = null, picture = null, ink = null;
  const mixed = (rgb, back, share) => rgb.reduce((all, channel, c) => all | Math.round(255 * (share * channel + (1 - share) * back[c])) << 8 * c, 255 << 24);
  function inks(view) {
    if (ink && ink.back === view.back && ink.colours === colours) return ink;
    const full = new Int32Array(256), faded = new Int32Array(256);
    for (let i = 0; i < 256; i++) {
      const rgb = colours[Math.min(i, colours.length - 1)];
      full[i] = mixed(rgb, view.back, 1); faded[i] = mixed(rgb, view.back, FADED);
    }
    return (ink = { full, faded, back: view.back, colours });
  }
  function dot(target, wide, at, side, colour) {
    for (let row = 0; row < side; row++) {
      const from = at + row * wide + DISCS[side][2 * row], to = at + row * wide + DISCS[side][2 * row + 1];
      // fill() is slower than a loop over these few pixels.
      for (let i = from; i < to; i++) target[i] = colour;
    }
  }
  function pass(target, wide, high, view, table, list) {
    const k = view.k * view.dpr, side = Math.max(1, Math.min(31, Math.round(view.size * view.dpr))), place = p.place;
    const left = view.x * view.dpr - side / 2, top = high - view.y * view.dpr - side / 2, count = list ? list.length : p.n;
    const right = wide - side, bottom = high - side;
    for (let j = 0; j < count; j++) {
      const i = list ? list[j] : j, x = place[2 * i] * k + left, y = top - place[2 * i + 1] * k;
      if (x < 0 || y < 0 || x >= right || y >= bottom) continue;
      const at = (y | 0) * wide + (x | 0), colour = table[codes[i]];
      if (side > 2) { dot(target, wide, at, side, colour); continue; }
      target[at] = colour;
      if (side === 2) { target[at + 1] = colour; target[at + wide] = colour; target[at + wide + 1] = colour; }
    }
  }
  function paint(view) {
    const wide = canvas.width = Math.round(view.w * view.dpr), high = canvas.height = Math.round(view.h * view.dpr);
    if (!picture || picture.width !== wide || picture.height !== high) picture = pen.createImageData(wide, high);
    const target = new Int32Array(picture.data.buffer), { full, faded } = inks(view);
    target.fill(0);
    pass(target, wide, high, view, chosen ? faded : full, null);
    if (chosen) pass(target, wide, high, view, full, chosen);
    pen.putImageData(picture, 0, 0);
  }
  return {
    name: "pixels", paint, active: (drawn) => { chosen = drawn; },
    recolour: (newCodes, newColours) => { codes = newCodes; colours = newColours; return Promise.resolve(); }, drawn: () => Promise.resolve(),
  };
}
