// Two maps of the same galaxies: galaxies that are marked in one are marked in the other. No library.
// Points come from scripts: positions float32 (x, y) and class int32 (-1: none), both base64, little-endian.
"use strict";
(() => {
  const given = window.rarezooCompare, NEAR = 9, NONE = -1, TOOLS = 48;

  function bytes(text) {
    const raw = atob(text), out = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
    return out.buffer;
  }

  function extent(xy, at) {
    let low = Infinity, high = -Infinity;
    for (let i = at; i < xy.length; i += 2) { low = Math.min(low, xy[i]); high = Math.max(high, xy[i]); }
    return [low, Math.max(high - low, 1e-9)];
  }

  function inside(path, x, y) {
    let odd = false;
    for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
      const [ax, ay] = path[i], [bx, by] = path[j];
      if (ay > y !== by > y && x < (bx - ax) * (y - ay) / (by - ay) + ax) odd = !odd;
    }
    return odd;
  }

  const boxes = [...document.querySelectorAll(".map[data-run]")];
  const sides = Object.fromEntries(boxes.map((box) => {
    const run = given[box.dataset.run];
    return [box.dataset.side, { letter: run.letter, colours: run.colours, xy: new Float32Array(bytes(run.positions)), label: new Int32Array(bytes(run.labels)) }];
  }));
  const n = given.ids.length, marked = new Uint8Array(n);
  let count = 0;

  function start(box) {
    const side = sides[box.dataset.side], { xy, label } = side, canvas = box.querySelector(".points"), over = box.querySelector(".labels");
    const pen = canvas.getContext("2d"), top = over.getContext("2d"), [x0, wide] = extent(xy, 0), [y0, high] = extent(xy, 1);
    const view = { x: 0, y: 0, k: 1, w: 1, h: 1, dpr: 1 }, held = new Map();
    let waiting = false, path = [], moving = false, touched = false, moved = 0, ink = {};
    const toX = (x) => (x - x0) * view.k + view.x, toY = (y) => view.h - (y - y0) * view.k - view.y;
    const middles = middle(side);

    function theme() {
      const style = getComputedStyle(box), value = (name) => style.getPropertyValue(`--${name}`).trim();
      const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)), back = rgb(value("panel"));
      const mix = (hex, share) => rgb(hex).reduce((all, c, i) => all | Math.round(share * c + (1 - share) * back[i]) << 8 * i, 255 << 24);
      const colours = [...Array(8).keys()].map((i) => value(`class-${i}`)).concat(value("point"));
      ink = { full: colours.map((c, i) => mix(c, i < 8 ? 1 : .5)), faint: colours.map((c) => mix(c, .22)), mark: mix(value("ink"), 1), text: value("ink"), page: value("panel") };
      redraw();
    }
    function redraw() { if (!waiting) { waiting = true; requestAnimationFrame(frame); } }
    function frame() {
      waiting = false;
      const w = canvas.width, h = canvas.height;
      if (w < 2 || h < 2) return;
      const picture = pen.createImageData(w, h), pixels = new Uint32Array(picture.data.buffer), d = view.dpr, plain = count ? ink.faint : ink.full;
      const dot = (i, side_, colour) => {
        const left = Math.round(toX(xy[2 * i]) * d - side_ / 2), up = Math.round(toY(xy[2 * i + 1]) * d - side_ / 2);
        if (left < 0 || up < 0 || left + side_ > w || up + side_ > h) return;
        for (let y = up; y < up + side_; y++) pixels.fill(colour, y * w + left, y * w + left + side_);
      };
      const size = Math.max(1, Math.round(d * (n > 2e5 ? 1 : 2)));
      for (let i = 0; i < n; i++) if (label[i] === NONE && !marked[i]) dot(i, size, plain[8]);
      for (let i = 0; i < n; i++) if (label[i] !== NONE && !marked[i]) dot(i, size + 1, plain[side.colours[label[i]]]);
      if (count) for (let i = 0; i < n; i++) if (marked[i]) { dot(i, size + 4, ink.mark); dot(i, size + 2, label[i] === NONE ? ink.full[8] : ink.full[side.colours[label[i]]]); }
      pen.putImageData(picture, 0, 0);
      labels();
    }
    function labels() {
      top.setTransform(view.dpr, 0, 0, view.dpr, 0, 0); top.clearRect(0, 0, view.w, view.h);
      top.font = "600 12px system-ui, sans-serif"; top.textAlign = "center"; top.textBaseline = "middle"; top.lineJoin = "round";
      const taken = [];
      for (const [id, mx, my] of middles) {
        const x = toX(mx), y = toY(my) - 14;
        if (x < 0 || y < 0 || x > view.w || y > view.h || taken.some(([a, b]) => Math.abs(a - x) < 26 && Math.abs(b - y) < 18)) continue;
        taken.push([x, y]);
        top.strokeStyle = ink.page; top.lineWidth = 4; top.strokeText(id, x, y); top.fillStyle = ink.text; top.fillText(id, x, y);
      }
      if (path.length > 1) {
        top.beginPath(); path.forEach(([x, y]) => top.lineTo(x, y)); top.closePath();
        top.strokeStyle = ink.text; top.lineWidth = 1.5; top.setLineDash([5, 4]); top.stroke(); top.setLineDash([]);
      }
    }
    function fit() {
      // The tools lie over the lowest pixels.
      const h = view.h - TOOLS;
      view.k = .92 * Math.min(view.w / wide, h / high);
      touched = false; view.x = (view.w - wide * view.k) / 2; view.y = TOOLS + (h - high * view.k) / 2; redraw();
    }
    function resize() {
      view.dpr = Math.min(window.devicePixelRatio || 1, 2); view.w = box.clientWidth; view.h = box.clientHeight;
      for (const one of [canvas, over]) { one.width = view.w * view.dpr; one.height = view.h * view.dpr; }
      if (touched) redraw(); else fit();
    }
    function zoom(factor, x = view.w / 2, y = view.h / 2) {
      view.x = x - (x - view.x) * factor; view.y = view.h - y - (view.h - y - view.y) * factor; view.k *= factor; touched = true; redraw();
    }
    function place(event) { const frameOf = canvas.getBoundingClientRect(); return [event.clientX - frameOf.left, event.clientY - frameOf.top]; }
    function nearest(x, y) {
      let best = -1, closest = NEAR * NEAR;
      for (let i = 0; i < n; i++) {
        const d = (toX(xy[2 * i]) - x) ** 2 + (toY(xy[2 * i + 1]) - y) ** 2;
        if (d < closest && label[i] !== NONE) { closest = d; best = i; }
      }
      return best;
    }
    function lassoed() {
      const xs = path.map(([x]) => x), ys = path.map(([, y]) => y), [l, r, t, b] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
      mark((i) => { const x = toX(xy[2 * i]), y = toY(xy[2 * i + 1]); return x > l && x < r && y > t && y < b && inside(path, x, y); });
    }

    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId); held.set(event.pointerId, event); moved = 0;
      path = moving || event.shiftKey || held.size > 1 ? [] : [place(event)];
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = held.get(event.pointerId);
      if (!before) return;
      const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY;
      moved += Math.abs(dx) + Math.abs(dy); held.set(event.pointerId, event);
      if (path.length) { path.push(place(event)); labels(); } else { view.x += dx; view.y -= dy; touched = true; redraw(); }
    });
    canvas.addEventListener("pointerup", (event) => {
      held.delete(event.pointerId);
      if (moved < 5) { const row = nearest(...place(event)); if (row >= 0) chosen({ [box.dataset.side]: label[row] }); } else if (path.length) lassoed();
      path = []; redraw();
    });
    canvas.addEventListener("pointercancel", (event) => { held.delete(event.pointerId); path = []; redraw(); });
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY * (event.deltaMode ? .05 : .0016)), ...place(event)); }, { passive: false });
    const tools = {
      in: () => zoom(1.6), out: () => zoom(1 / 1.6), all: fit,
      move: (button) => { moving = !moving; button.setAttribute("aria-pressed", moving); canvas.classList.toggle("moving", moving); },
    };
    box.querySelectorAll("[data-tool]").forEach((button) => button.addEventListener("click", () => tools[button.dataset.tool](button)));
    const step = 60, keys = {
      "+": tools.in, "=": tools.in, "-": tools.out, 0: fit,
      ArrowLeft: () => { view.x += step; }, ArrowRight: () => { view.x -= step; }, ArrowUp: () => { view.y -= step; }, ArrowDown: () => { view.y += step; },
    };
    canvas.addEventListener("keydown", (event) => { if (keys[event.key]) { event.preventDefault(); touched = true; keys[event.key](); redraw(); } });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", theme);
    new ResizeObserver(resize).observe(box);
    theme();
    return { redraw, at: (row) => [toX(xy[2 * row]), toY(xy[2 * row + 1])] };
  }

  // Id and median position of every class, the largest first.
  function middle({ xy, label }) {
    const rows = new Map();
    for (let i = 0; i < n; i++) if (label[i] !== NONE) (rows.get(label[i]) || rows.set(label[i], []).get(label[i])).push(i);
    const half = (of, at) => of.map((i) => xy[2 * i + at]).sort((a, b) => a - b)[of.length >> 1];
    return [...rows].sort((a, b) => b[1].length - a[1].length).map(([id, of]) => [id, half(of, 0), half(of, 1)]);
  }

  const told = document.getElementById("brushed"), save = document.getElementById("save"), clear = document.getElementById("clear");

  function mark(wanted) {
    count = 0;
    for (let i = 0; i < n; i++) count += marked[i] = wanted(i) ? 1 : 0;
    told.textContent = count ? `${count.toLocaleString("en")} ${count > 1 ? "galaxies" : "galaxy"} marked. ${Object.values(sides).map(where).join("; ")}.` : "No galaxy is marked.";
    save.hidden = clear.hidden = !count;
    maps.forEach((one) => one.redraw());
  }

  // In which classes of one search the marked galaxies are, the commonest first.
  function where({ letter, label }) {
    const counts = new Map();
    for (let i = 0; i < n; i++) if (marked[i]) counts.set(label[i], (counts.get(label[i]) || 0) + 1);
    const sorted = [...counts].sort((a, b) => b[1] - a[1]), shown = sorted.slice(0, 6).map(([id, size]) => `${id === NONE ? "no class" : `${letter} ${id}`} ${size.toLocaleString("en")}`);
    return `In ${letter}: ${shown.join(", ")}${sorted.length > 6 ? ` and ${sorted.length - 6} more` : ""}`;
  }

  // Mark a class of one search, or what a class of each shares.
  function chosen({ first, second }) {
    mark((i) => (first === undefined || sides.first.label[i] === Number(first)) && (second === undefined || sides.second.label[i] === Number(second)));
  }

  const maps = boxes.map(start), section = document.getElementById("maps");
  document.querySelectorAll("[data-first]:not(.map), [data-second]:not(.map)").forEach((one) => one.addEventListener("click", () => {
    const both = one.classList.contains("show") && one.dataset.first !== undefined && one.dataset.second !== undefined;
    if (both) mark((i) => sides.first.label[i] === Number(one.dataset.first) || sides.second.label[i] === Number(one.dataset.second)); else chosen(one.dataset);
    section.scrollIntoView();
  }));
  document.querySelectorAll("select[data-side]").forEach((select) => select.addEventListener("change", () => {
    if (select.value === "") mark(() => false); else chosen({ [select.dataset.side]: select.value });
  }));
  document.querySelectorAll("button.cutout").forEach((button) => button.addEventListener("click", () => {
    document.querySelectorAll(".cutout[aria-pressed]").forEach((other) => other.removeAttribute("aria-pressed"));
    button.setAttribute("aria-pressed", "true");
    const row = Number(button.dataset.row), message = button.closest(".gallery").querySelector(".chosen");
    message.hidden = false; message.textContent = `${button.title} (marked in both maps)`;
    mark((i) => i === row);
  }));
  clear.addEventListener("click", () => mark(() => false));
  save.addEventListener("click", () => {
    const cell = (text) => /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    const lines = given.ids.flatMap((id, i) => marked[i] ? [[cell(id), sides.first.label[i], sides.second.label[i]].join(",")] : []);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`id_str,${sides.first.letter},${sides.second.letter}\n${lines.join("\n")}\n`], { type: "text/csv" }));
    link.download = "marked.csv"; link.click(); URL.revokeObjectURL(link.href);
  });
  const at = (side, row) => maps[boxes.findIndex((box) => box.dataset.side === side)].at(row);
  window.rarezooMaps = { at, mark, chosen, marked, told };
})();
