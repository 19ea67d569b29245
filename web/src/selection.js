// The selected galaxies: their number, their classes, a gallery, a list, a file.
import { count, csv, download, el } from "./dom.js";
import { ids, sky } from "./galaxy.js";
import { sheet } from "./card.js";
import { NONE } from "./points.js";

const SHOWN = 48, LISTED = 500;

async function save(rows, map, p) {
  const names = await ids(), place = map.sky ? await sky() : null;
  const head = ["id_str", "class_id", ...(place ? ["ra", "dec"] : [])];
  const known = (value) => (Number.isFinite(value) ? value : "");
  download("selection.csv", csv([head, ...rows.map((i) => [names[i], p.label[i] === NONE ? -1 : p.label[i], ...(place ? [known(place.ra[i]), known(place.dec[i])] : [])])]), "text/csv");
}

export async function selection(box, rows, { map, atlas, choose, open, name }) {
  const names = await ids(), { p, images } = atlas, tally = new Map();
  for (const i of rows) tally.set(p.label[i], (tally.get(p.label[i]) || 0) + 1);
  const classes = [...tally].filter(([id]) => id !== NONE).sort((a, b) => b[1] - a[1]);
  // Galaxies spread over the selection, those with an image first.
  const order = [...rows.filter((i) => images.has(i)), ...rows.filter((i) => !images.has(i))], pool = images.has(order[0]) ? rows.filter((i) => images.has(i)) : order;
  const step = Math.max(1, pool.length / SHOWN), shown = Array.from({ length: Math.min(SHOWN, pool.length) }, (_, k) => pool[Math.floor(k * step)]);
  const galaxies = shown.map((row) => ({ row, id: names[row], membership: p.label[row] === NONE ? "in no class" : `class ${name(p.label[row])}`, style: images.has(row) ? images.style(row) : null }));
  box.replaceChildren(
    el("p", { role: "status" }, el("strong", {}, `${count(rows.length)} ${rows.length === 1 ? "galaxy" : "galaxies"}`), `; ${count(tally.get(NONE) || 0)} in no class`),
    el("p", { class: "buttons" }, el("button", { type: "button", id: "save-selection", disabled: !rows.length, onclick: () => save(rows, map, p) }, "download CSV")),
    classes.length ? el("ul", { class: "tally" }, classes.slice(0, 20).map(([id, number]) => el("li", {}, el("button", { type: "button", class: "plain", onclick: () => open(id) }, `class ${name(id)}`), ` ${count(number)}`))) : "",
    el("h3", {}, "Gallery"), rows.length ? sheet(galaxies, choose) : el("p", { class: "small" }, "The selection is empty."),
    el("h3", {}, "List"), el("p", { class: "small" }, rows.length > LISTED ? `The list shows the first ${LISTED}. The CSV file has all.` : ""),
    el("ol", { class: "list", tabindex: 0, "aria-label": "Galaxies selected" }, rows.slice(0, LISTED).map((i) => el("li", {}, el("button", { type: "button", class: "plain", onclick: () => choose(i) }, names[i])))),
  );
}
