// A galaxy: its image, class and position, and links to other web pages about this position.
import { sheet } from "./card.js";
import { data, float64, int32 } from "./columns.js";
import { el } from "./dom.js";

const PAGES = [
  ["Legacy Survey", (ra, dec) => `https://www.legacysurvey.org/viewer?ra=${ra}&dec=${dec}&layer=ls-dr10&zoom=16&mark=${ra},${dec}`],
  ["SIMBAD", (ra, dec) => `https://simbad.cds.unistra.fr/simbad/sim-coo?Coord=${ra}%20${dec}&CooFrame=ICRS&Radius=10&Radius.unit=arcsec`],
  ["Aladin", (ra, dec) => `https://aladin.cds.unistra.fr/AladinLite/?target=${ra}%20${dec}&fov=0.03`],
];

export const ids = () => data("ids");
export const sky = async () => ({ ra: await data("ra", float64), dec: await data("dec", float64) });

export function links(ra, dec) {
  return PAGES.map(([name, page]) => el("a", { href: page(ra.toFixed(6), dec.toFixed(6)), target: "_blank", rel: "noopener" }, name));
}

// The galaxies that are most alike to one with a thumbnail, as buttons, and what else a reader should know.
async function similar(row, { map, atlas, name, choose }) {
  const [{ each, nearest }, slots, names] = [await data("similar", (content) => ({ each: content.each, nearest: int32(content.rows) })), await data("slots", int32), await ids()];
  const first = each * slots[row], rows = [...nearest.slice(first, first + each)].filter((other) => other >= 0);
  if (!rows.length) return el("p", { class: "small" }, "Its embedding is not known.");
  const membership = (other) => (map.classes.some((known) => known.id === atlas.p.label[other]) ? `class ${name(atlas.p.label[other])}` : "in no class");
  return el("div", {}, el("h3", {}, "Similar galaxies"), el("p", { class: "small" }, "The most alike by the embedding, of the galaxies whose images are on the map."),
    sheet(rows.map((other) => ({ row: other, id: names[other], membership: membership(other), style: atlas.images.style(other) })), choose));
}

export async function galaxy(box, row, about) {
  const { map, atlas, name, open } = about;
  const id = (await ids())[row], label = atlas.p.label[row], known = map.classes.some((known) => known.id === label);
  const place = map.sky ? await sky() : null, ra = place ? place.ra[row] : NaN, dec = place ? place.dec[row] : NaN;
  const image = atlas.images.has(row) ? el("span", { class: "cutout big", role: "img", "aria-label": `Galaxy ${id}`, style: atlas.images.style(row) }) : null;
  const alike = el("div", { class: "alike" });
  const showAlike = map.similar && image ? el("p", {}, el("button", { type: "button", class: "alike", onclick: async (event) => { event.target.disabled = true; alike.replaceChildren(await similar(row, about).catch((problem) => el("p", {}, problem.message))); } }, "similar galaxies")) : null;
  box.replaceChildren(image || "", el("div", {},
    el("h2", {}, id),
    el("p", {}, known ? el("button", { type: "button", class: "plain", onclick: () => open(label) }, `class ${name(label)}`) : "in no class"),
    Number.isFinite(ra) ? el("p", {}, `RA ${ra.toFixed(5)}°, Dec ${dec.toFixed(5)}°`) : el("p", { class: "small" }, "Its position on the sky is unknown."),
    Number.isFinite(ra) ? el("p", { class: "links" }, links(ra, dec)) : null, showAlike), alike);
  box.hidden = false;
}
