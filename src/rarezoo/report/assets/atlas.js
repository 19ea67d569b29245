// The map of a search: points in WebGL (a 2-D canvas where there is none), pan, zoom, hover and click. No library.
// Points come from map.js: positions float32 (x, y) and class uint16 (65535: none), both base64, little-endian.
"use strict";
(() => {
  const NONE = 65535, NEAR = 9, CELLS = 256, MAX_ZOOM = 4000;

  function bytes(text) {
    const raw = atob(text), out = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
    return out.buffer;
  }

  function points(map) {
    const xy = new Float32Array(bytes(map.positions)), label = new Uint16Array(bytes(map.labels)), n = map.points;
    let x0 = Infinity, x1 = -Infinity, y0 = Infinity, y1 = -Infinity;
    for (let i = 0; i < n; i++) {
      x0 = Math.min(x0, xy[2 * i]); x1 = Math.max(x1, xy[2 * i]);
      y0 = Math.min(y0, xy[2 * i + 1]); y1 = Math.max(y1, xy[2 * i + 1]);
    }
    return { n, xy, label, x0, y0, wide: Math.max(x1 - x0, 1e-9), high: Math.max(y1 - y0, 1e-9), cells: null };
  }

  // Rows of points by cell of a grid, for finding the nearest.
  function cells(p) {
    const of = new Uint32Array(p.n), start = new Uint32Array(CELLS * CELLS + 1), rows = new Uint32Array(p.n);
    for (let i = 0; i < p.n; i++) {
      const cx = Math.min(CELLS - 1, (p.xy[2 * i] - p.x0) / p.wide * CELLS | 0);
      const cy = Math.min(CELLS - 1, (p.xy[2 * i + 1] - p.y0) / p.high * CELLS | 0);
      of[i] = cy * CELLS + cx; start[of[i] + 1]++;
    }
    for (let c = 0; c < CELLS * CELLS; c++) start[c + 1] += start[c];
    const next = start.slice();
    for (let i = 0; i < p.n; i++) rows[next[of[i]]++] = i;
    return { start, rows };
  }

  function nearest(p, x, y, reach) {
    p.cells = p.cells || cells(p);
    const cell = (value, from, size) => Math.max(0, Math.min(CELLS - 1, Math.floor((value - from) / size * CELLS)));
    let best = -1, closest = reach * reach;
    for (let cy = cell(y - reach, p.y0, p.high); cy <= cell(y + reach, p.y0, p.high); cy++) {
      for (let cx = cell(x - reach, p.x0, p.wide); cx <= cell(x + reach, p.x0, p.wide); cx++) {
        const c = cy * CELLS + cx;
        for (let k = p.cells.start[c]; k < p.cells.start[c + 1]; k++) {
          const i = p.cells.rows[k], dx = p.xy[2 * i] - x, dy = p.xy[2 * i + 1] - y, d = dx * dx + dy * dy;
          if (p.label[i] !== NONE && d < closest) { closest = d; best = i; }
        }
      }
    }
    return best;
  }

  // look: colour, shape, class (−1: none). With a class picked out, the others fade, and it is drawn again over them.
  const VERTEX = `
    attribute vec2 place; attribute vec3 look;
    uniform vec2 scale, shift; uniform float size, only; uniform bool again; uniform vec3 colours[9];
    varying vec4 shade; varying float form;
    void main() {
      bool inside = look.z > -.5, mine = abs(look.z - only) < .5, faded = only > -.5 && !mine;
      gl_Position = again && !mine ? vec4(2., 2., 2., 1.) : vec4(place * scale + shift, 0., 1.);
      gl_PointSize = size * (inside ? (only > -.5 && mine ? 1.9 : 1.5) : 1.);
      form = gl_PointSize < 2.5 ? -1. : inside ? look.y : 0.;
      float alpha = faded ? .22 : inside ? .92 : .38;
      shade = vec4(colours[int(look.x + .5)] * alpha, alpha);
    }`;
  const FRAGMENT = `
    precision mediump float;
    varying vec4 shade; varying float form;
    void main() {
      if (form < -.5) { gl_FragColor = shade; return; }
      vec2 p = gl_PointCoord * 2. - 1., a = abs(p);
      float d = length(p) - .92;
      if (form > 4.5) d = max(max(a.x, a.y) - .95, min(a.x, a.y) - .32);
      else if (form > 3.5) d = abs(length(p) - .68) - .26;
      else if (form > 2.5) d = a.x + a.y - 1.05;
      else if (form > 1.5) d = max(p.y - .7, a.x * .9 - (p.y + .95) * .48);
      else if (form > .5) d = max(a.x, a.y) - .8;
      gl_FragColor = shade * (1. - smoothstep(-.12, .06, d));
    }`;

  // Whether WebGL would run on the processor (no graphics card, a remote desktop), several times slower than plain().
  function emulated() {
    const gl = document.createElement("canvas").getContext("webgl"), about = gl && gl.getExtension("WEBGL_debug_renderer_info");
    return !!about && /swiftshader|llvmpipe|softpipe|software|basic render/i.test(gl.getParameter(about.UNMASKED_RENDERER_WEBGL));
  }

  function webgl(canvas, p, look) {
    if (emulated()) return null;
    const gl = canvas.getContext("webgl", { antialias: false });
    if (!gl) return null;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source); gl.compileShader(shader); gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return null;
    gl.useProgram(program);
    const attribute = (name, values, width) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
      const at = gl.getAttribLocation(program, name);
      gl.enableVertexAttribArray(at); gl.vertexAttribPointer(at, width, gl.FLOAT, false, 0, 0);
    };
    attribute("place", look.place, 2); attribute("look", look.look, 3);
    gl.enable(gl.BLEND); gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    const at = Object.fromEntries(["scale", "shift", "size", "only", "again", "colours"].map((name) => [name, gl.getUniformLocation(program, name)]));
    return (view) => {
      gl.viewport(0, 0, canvas.width, canvas.height); gl.clearColor(0, 0, 0, 0); gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniform2f(at.scale, 2 * view.k / view.w, 2 * view.k / view.h);
      gl.uniform2f(at.shift, 2 * view.x / view.w - 1, 2 * view.y / view.h - 1);
      gl.uniform1f(at.size, view.size * view.dpr); gl.uniform1f(at.only, view.only); gl.uniform3fv(at.colours, view.colours);
      for (let pass = 0; pass <= (view.only >= 0 ? 1 : 0); pass++) { gl.uniform1i(at.again, pass); gl.drawArrays(gl.POINTS, 0, p.n); }
    };
  }

  // Without WebGL: opaque squares straight into the pixels.
  function plain(canvas, p, look) {
    const pen = canvas.getContext("2d");
    return (view) => {
      const wide = canvas.width, high = canvas.height, picture = pen.createImageData(wide, high), pixels = new Uint32Array(picture.data.buffer);
      const ink = (i, share) => [0, 1, 2].reduce((all, c) => all | Math.round(255 * (share * view.colours[3 * i + c] + (1 - share) * view.back[c])) << 8 * c, 255 << 24);
      const full = [...Array(9).keys()].map((i) => ink(i, i < 8 ? 1 : .5)), faded = full.map((_, i) => ink(i, .25)), k = view.k * view.dpr;
      for (let pass = 0; pass <= (view.only >= 0 ? 1 : 0); pass++) {
        for (let i = 0; i < p.n; i++) {
          const colour = look.look[3 * i], label = look.look[3 * i + 2], mine = label === view.only;
          if (pass && !mine) continue;
          const side = Math.max(1, Math.round(view.size * view.dpr * (label < 0 ? .8 : 1.3)));
          const left = Math.round(look.place[2 * i] * k + view.x * view.dpr - side / 2), top = Math.round(high - look.place[2 * i + 1] * k - view.y * view.dpr - side / 2);
          if (left < 0 || top < 0 || left + side > wide || top + side > high) continue;
          for (let y = top; y < top + side; y++) pixels.fill(view.only >= 0 && !mine ? faded[colour] : full[colour], y * wide + left, y * wide + left + side);
        }
      }
      pen.putImageData(picture, 0, 0);
    };
  }

  // Positions from 0 to 1, and colour, shape and class of each point, in drawing order: those in no class first.
  function looks(p, map) {
    const of = new Map(map.classes.map((one) => [one.id, one]));
    const place = new Float32Array(2 * p.n), look = new Float32Array(3 * p.n), span = Math.max(p.wide, p.high);
    let k = 0;
    for (const inside of [false, true]) {
      for (let i = 0; i < p.n; i++) {
        if ((p.label[i] !== NONE) !== inside) continue;
        const one = of.get(p.label[i]) || { colour: 8, shape: 0, id: -1 };
        place[2 * k] = (p.xy[2 * i] - p.x0) / span; place[2 * k + 1] = (p.xy[2 * i + 1] - p.y0) / span;
        look.set([one.colour, one.shape, one.id], 3 * k++);
      }
    }
    return { place, look, span };
  }

  function start(box, map) {
    const canvas = box.querySelector(".points"), over = box.querySelector(".labels"), tip = box.querySelector(".tip");
    const p = points(map), look = looks(p, map), own = box.dataset.class === undefined ? -1 : Number(box.dataset.class);
    const draw = webgl(canvas, p, look) || plain(canvas, p, look), pen = over.getContext("2d");
    const view = { x: 0, y: 0, k: 1, w: 1, h: 1, dpr: 1, size: 2, only: own };
    let fitted = 1, waiting = false, ringed = -1;
    const toX = (x) => (x - p.x0) / look.span * view.k + view.x, toY = (y) => view.h - (y - p.y0) / look.span * view.k - view.y;

    function theme() {
      const style = getComputedStyle(box), value = (name) => style.getPropertyValue(`--${name}`).trim();
      const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255);
      view.colours = new Float32Array([...Array(8).keys()].map((i) => value(`class-${i}`)).concat(value("point")).flatMap(rgb));
      view.ink = value("ink"); view.page = value("panel"); view.back = rgb(view.page);
      redraw();
    }
    function redraw() { if (!waiting) { waiting = true; requestAnimationFrame(frame); } }
    function frame() {
      waiting = false;
      if (view.w < 2 || view.h < 2) return;
      view.size = Math.min(9, Math.max(1.4, 2.6 * Math.sqrt(view.k / fitted) * Math.min(1, 60 / Math.sqrt(p.n) + .45)));
      draw(view); labels();
    }
    // Class numbers above the classes' medians, those of the first cards first; one that would cover another is left out.
    function labels() {
      pen.setTransform(view.dpr, 0, 0, view.dpr, 0, 0); pen.clearRect(0, 0, view.w, view.h);
      pen.font = "600 13px system-ui, sans-serif"; pen.textAlign = "center"; pen.textBaseline = "middle"; pen.lineJoin = "round";
      const taken = [];
      for (const one of map.classes) {
        if (view.only >= 0 && one.id !== view.only) continue;
        const x = toX(one.x), y = toY(one.y) - 16;
        if (x < 0 || y < 0 || x > view.w || y > view.h || taken.some(([a, b]) => Math.abs(a - x) < 30 && Math.abs(b - y) < 20)) continue;
        taken.push([x, y]);
        pen.strokeStyle = view.page; pen.lineWidth = 4; pen.strokeText(one.id, x, y); pen.fillStyle = view.ink; pen.fillText(one.id, x, y);
      }
      if (ringed >= 0) {
        pen.beginPath(); pen.arc(toX(p.xy[2 * ringed]), toY(p.xy[2 * ringed + 1]), 11, 0, 7);
        pen.strokeStyle = view.page; pen.lineWidth = 6; pen.stroke(); pen.strokeStyle = view.ink; pen.lineWidth = 2.5; pen.stroke();
      }
    }
    function resize() {
      const old = { w: view.w, h: view.h };
      view.dpr = Math.min(window.devicePixelRatio || 1, 2); view.w = box.clientWidth; view.h = box.clientHeight;
      for (const one of [canvas, over]) { one.width = view.w * view.dpr; one.height = view.h * view.dpr; }
      if (old.w < 2 || old.h < 2) fit(); else { view.x += (view.w - old.w) / 2; view.y += (view.h - old.h) / 2; redraw(); }
    }
    function fit(rows) {
      let x0 = p.x0, y0 = p.y0, wide = p.wide, high = p.high;
      if (rows) {
        const middle = (at) => { const v = rows.map((i) => p.xy[2 * i + at]).sort((a, b) => a - b); return [v[v.length * .02 | 0], v[v.length * .98 | 0]]; };
        const [a, b] = middle(0), [c, d] = middle(1), pad = .6 * Math.max(b - a, d - c, look.span / 200);
        x0 = a - pad; wide = b - a + 2 * pad; y0 = c - pad; high = d - c + 2 * pad;
      }
      view.k = .94 * look.span * Math.min(view.w / wide, view.h / high);
      if (!rows) fitted = view.k;
      view.x = view.w / 2 - (x0 + wide / 2 - p.x0) / look.span * view.k; view.y = view.h / 2 - (y0 + high / 2 - p.y0) / look.span * view.k;
      redraw();
    }
    function zoom(factor, x = view.w / 2, y = view.h / 2) {
      const k = Math.max(fitted * .5, Math.min(fitted * MAX_ZOOM, view.k * factor)), f = k / view.k;
      view.x = x - (x - view.x) * f; view.y = view.h - y - (view.h - y - view.y) * f; view.k = k; redraw();
    }
    function at(event) {
      const frameOf = canvas.getBoundingClientRect(), x = event.clientX - frameOf.left, y = event.clientY - frameOf.top;
      const unit = look.span / view.k;
      const row = nearest(p, p.x0 + (x - view.x) * unit, p.y0 + (view.h - y - view.y) * unit, (event.pointerType === "touch" ? 2 : 1) * NEAR * unit);
      return { x, y, one: row < 0 ? null : map.classes.find((known) => known.id === p.label[row]) };
    }
    function show({ x, y, one }) {
      tip.hidden = !one; canvas.classList.toggle("over", !!one && one.id !== own);
      if (!one) return;
      tip.textContent = `class ${one.id} · ${one.size.toLocaleString("en")} galaxies`;
      tip.style.left = `${Math.min(x + 14, view.w - tip.offsetWidth - 6)}px`; tip.style.top = `${Math.max(y - 36, 6)}px`;
    }

    const held = new Map();
    let moved = 0;
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); held.set(event.pointerId, event); if (held.size === 1) moved = 0; });
    canvas.addEventListener("pointermove", (event) => {
      const before = held.get(event.pointerId);
      if (!before) { show(at(event)); return; }
      const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY, other = [...held.values()].find((one) => one.pointerId !== event.pointerId);
      moved += Math.abs(dx) + Math.abs(dy); tip.hidden = true;
      if (other) {
        const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY), frameOf = canvas.getBoundingClientRect();
        zoom(apart(event) / Math.max(apart(before), 1), (event.clientX + other.clientX) / 2 - frameOf.left, (event.clientY + other.clientY) / 2 - frameOf.top);
      }
      view.x += dx / held.size; view.y -= dy / held.size; held.set(event.pointerId, event); redraw();
    });
    const release = (event) => {
      const click = held.size === 1 && moved < 5 && event.type === "pointerup";
      held.delete(event.pointerId);
      if (!click) return;
      const found = at(event);
      show(found);
      if (found.one && found.one.id !== own) window.location.href = found.one.page;
    };
    canvas.addEventListener("pointerup", release); canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const frameOf = canvas.getBoundingClientRect();
      zoom(Math.exp(-event.deltaY * (event.deltaMode ? .05 : .0016)), event.clientX - frameOf.left, event.clientY - frameOf.top);
    }, { passive: false });
    const members = () => [...p.label.keys()].filter((i) => p.label[i] === own);
    const tools = { in: () => zoom(1.6), out: () => zoom(1 / 1.6), all: () => fit(), class: () => fit(members()) };
    box.querySelectorAll("[data-tool]").forEach((button) => button.addEventListener("click", tools[button.dataset.tool]));
    const step = 60, keys = {
      "+": tools.in, "=": tools.in, "-": tools.out, 0: tools.all,
      ArrowLeft: () => { view.x += step; }, ArrowRight: () => { view.x -= step; }, ArrowUp: () => { view.y -= step; }, ArrowDown: () => { view.y += step; },
    };
    canvas.addEventListener("keydown", (event) => { if (keys[event.key]) { event.preventDefault(); keys[event.key](); redraw(); } });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", theme);
    new ResizeObserver(resize).observe(box);
    theme();
    return { only: (id) => { view.only = id < 0 ? own : id; redraw(); }, ring: (row) => { ringed = row; redraw(); }, zoom, redraw, frame };
  }

  const box = document.querySelector(".map");
  const atlas = box && window.rarezooMap ? start(box, window.rarezooMap) : null;
  window.rarezooAtlas = atlas;
  document.querySelectorAll(".card").forEach((card) => {
    const id = Number(card.dataset.class);
    for (const name of ["pointerenter", "focusin"]) card.addEventListener(name, () => atlas && atlas.only(id));
    for (const name of ["pointerleave", "focusout"]) card.addEventListener(name, () => atlas && atlas.only(-1));
  });
  document.querySelectorAll("button.cutout").forEach((button) => button.addEventListener("click", () => {
    document.querySelectorAll(".cutout[aria-pressed]").forEach((other) => other.removeAttribute("aria-pressed"));
    button.setAttribute("aria-pressed", "true");
    const told = button.closest(".gallery").querySelector(".chosen");
    told.hidden = false; told.textContent = `${button.title} (ringed in the map)`;
    if (atlas) atlas.ring(Number(button.dataset.row));
  }));
})();
