// The current galaxy: image, position, what was said about it, why it is shown, answers, catalogue row.
import { el, number, words } from "./dom.js";
import { SIDE, get, picture } from "./rate-api.js";
import { said } from "./rate-marks.js";

const $ = (name) => document.getElementById(name);
const SOON = 120, REMEMBERED = 200, ANSWERS = 12;
export const REASONS = {
  model: "The model expects it to be interesting.", explore: "The model knows little about galaxies like this one.",
  random: "It was drawn at random: such galaxies show how many interesting ones are left.", start: "The ratings tell nothing yet, so galaxies of every sort, and random ones, are shown.",
  similar: "It is like the galaxy that you chose.", words: "Its predicted answers fit your words.", class: "It belongs to the class that you chose.", ranking: "The model expects it to be interesting.",
  again: "You rated it before.", search: "You searched for it.", example: "It is an example.",
};

export class Panel {
  // mark(id), tags(id): what this person said; following(): id of the galaxy that comes next; untag(tag); openClass(id).
  constructor({ images, by, mark, tags, following, untag, openClass, choose }) { Object.assign(this, { images, by, mark, tags, following, untag, openClass, choose, known: new Map(), timer: 0, galaxy: null }); }

  show(galaxy) {
    const changed = galaxy?.id_str !== this.galaxy?.id_str;
    this.galaxy = galaxy;
    if (!galaxy) return;
    $("galaxy-title").textContent = galaxy.id_str;
    const portrait = $("portrait").firstElementChild;
    // The image of the grid is there already, and stands in for the whole one until that is loaded.
    portrait.style.backgroundImage = this.images ? `url("${picture(galaxy.id_str)}"), url("${picture(galaxy.id_str, SIDE)}")` : "none";
    portrait.setAttribute("aria-label", this.images ? `Galaxy ${galaxy.id_str}` : "There are no images");
    this.rated();
    this.why();
    if (!changed) return;
    clearTimeout(this.timer);
    if (this.known.has(galaxy.id_str)) { this.details(this.known.get(galaxy.id_str)); return; }
    this.details(null);
    // While somebody rates quickly, details of galaxies that are gone already are not asked for.
    this.timer = setTimeout(() => this.ask(galaxy.id_str), SOON);
  }

  async ask(id) {
    const there = this.known.has(id);
    try { if (!there) this.known.set(id, await get("galaxy", { id })); } catch { return; }
    if (this.known.size > REMEMBERED) this.known.delete(this.known.keys().next().value);
    if (this.galaxy?.id_str !== id) return;
    this.details(this.known.get(id));
    const following = this.following();
    if (following && !this.known.has(following)) this.ask(following);
  }

  // What a person and, after their own rating, others have said.
  rated() {
    const { id_str: id } = this.galaxy, mark = this.mark(id), details = this.known.get(id), others = mark && details ? details.ratings.filter((rating) => rating.by !== this.by() && rating.label === mark.rating.label) : [];
    $("galaxy-rated").textContent = (mark ? `You: ${said(mark.rating)}${mark.key ? ", not saved yet" : ", saved"}.` : "Not rated yet.") + others.map((rating) => ` ${rating.by}: ${said(rating)}.`).join("");
    const tags = this.tags(id);
    $("galaxy-tags").replaceChildren(...(tags.length ? tags.map(({ rating }) => el("button", { type: "button", "aria-label": `Remove the tag ${rating.label}`, title: "Remove this tag", onclick: () => this.untag(rating.label) }, `${rating.label} ×`)) : [el("span", { class: "small" }, "no tags")]));
  }

  why() {
    const { why, score, uncertainty, nearest_rated: nearest, round, distance_arcsec: far } = this.galaxy, known = (value) => value !== null && value !== undefined;
    const numbers = [known(score) ? `score ${number(score)}${known(uncertainty) ? ` ± ${number(uncertainty)}` : ""}` : "", known(round) && round > 0 ? `round ${round} of the model` : "", known(far) ? `${number(far)} arcsec from the position` : ""].filter(Boolean).join(", ");
    $("why-text").replaceChildren(el("p", {}, REASONS[why] || why || "It is in the list.", numbers ? ` (${numbers})` : ""),
      nearest ? el("p", { class: "nearest" }, this.images ? el("button", { type: "button", class: "cutout", "aria-label": `Galaxy ${nearest}, the nearest that was rated`, title: nearest, onclick: () => this.choose(nearest), style: { backgroundImage: `url("${picture(nearest, 128)}")` } }) : null, el("span", {}, `The nearest galaxy that was rated: ${nearest}.`)) : el("p", { class: "small" }, "No galaxy like it was rated yet."));
  }

  // details: null while they are not known.
  details(details) {
    if (!details) {
      $("galaxy-place").textContent = "…";
      $("open-class").hidden = true;
      for (const name of ["galaxy-links", "galaxy-answers", "galaxy-catalogue"]) $(name).replaceChildren();
      return;
    }
    const known = details.ra !== null;
    $("galaxy-place").textContent = known ? `RA ${details.ra.toFixed(5)}°, Dec ${details.dec.toFixed(5)}°` : "Its position on the sky is unknown.";
    $("galaxy-links").replaceChildren(...details.links.map(({ name, url }) => el("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, name)));
    const button = $("open-class");
    button.hidden = details.class_id === null;
    button.textContent = `class ${details.class_id}`;
    button.onclick = () => this.openClass(details.class_id);
    const row = (name, value) => el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: typeof value === "number" ? "n" : null }, value === null ? "–" : typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value)));
    $("galaxy-answers").replaceChildren(details.answers.length ? el("table", {}, el("tbody", {}, details.answers.slice(0, ANSWERS).map(({ name, fraction }) => row(words(name), fraction)))) : el("p", { class: "small" }, "There are no predicted answers."));
    $("galaxy-catalogue").replaceChildren(details.catalogue.length ? el("table", {}, el("tbody", {}, details.catalogue.map(([name, value]) => row(name, value)))) : el("p", { class: "small" }, "There is no catalogue."));
    this.rated();
  }
}
