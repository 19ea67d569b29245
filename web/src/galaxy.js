// A galaxy: its image, class and position, and links to other web pages about this position.
import { data, float64 } from "./columns.js";
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

export async function galaxy(box, row, { map, atlas, name, open }) {
  const id = (await ids())[row], label = atlas.p.label[row], known = map.classes.some((known) => known.id === label);
  const place = map.sky ? await sky() : null, ra = place ? place.ra[row] : NaN, dec = place ? place.dec[row] : NaN;
  const image = atlas.images.has(row) ? el("span", { class: "cutout big", role: "img", "aria-label": `Galaxy ${id}`, style: atlas.images.style(row) }) : null;
  box.replaceChildren(image || "", el("div", {},
    el("h2", {}, id),
    el("p", {}, known ? el("button", { type: "button", class: "plain", onclick: () => open(label) }, `class ${name(label)}`) : "in no class"),
    Number.isFinite(ra) ? el("p", {}, `RA ${ra.toFixed(5)}°, Dec ${dec.toFixed(5)}°`) : el("p", { class: "small" }, "Its position on the sky is unknown."),
    Number.isFinite(ra) ? el("p", { class: "links" }, links(ra, dec)) : null));
  box.hidden = false;
}
