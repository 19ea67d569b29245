// The galaxies of a page as a grid of buttons, or the current one alone. Cells keep their places while galaxies are rated.
import { el } from "./dom.js";
import { SIDE, picture } from "./rate-api.js";
import { said } from "./rate-marks.js";

export class Grid {
  // mark(id): the mark of a galaxy or null; chosen(place): a person wants to look at a galaxy.
  constructor({ box, single, images, mark, chosen }) { Object.assign(this, { box, single, images, mark, chosen, page: [], cells: [] }); }

  show(page, current) {
    this.page = page;
    this.cells = page.map((galaxy, place) => {
      const image = el("button", { type: "button", class: `cutout${this.images ? "" : " bare"}`, title: galaxy.id_str, tabindex: -1, onclick: () => this.chosen(place), style: this.images ? { backgroundImage: `url("${picture(galaxy.id_str, SIDE)}")` } : {} }, this.images ? "" : galaxy.id_str);
      return { image, mark: el("span", { class: "mark-of", "aria-hidden": "true" }) };
    });
    this.box.replaceChildren(...this.cells.map(({ image, mark }) => el("li", {}, image, mark)));
    page.forEach((galaxy, place) => this.redraw(place));
    this.move(current);
  }

  // Loads the images of a page that is not on the screen yet.
  warm(page) {
    if (this.images) this.warmed = page.map((galaxy) => Object.assign(new Image(), { src: picture(galaxy.id_str, SIDE) }));
  }

  redraw(place) {
    const cell = this.cells[place], galaxy = this.page[place], mark = this.mark(galaxy.id_str), text = mark ? said(mark.rating) : "";
    cell.mark.textContent = mark ? `${text} ${mark.key ? "…" : "✓"}` : "";
    cell.mark.parentElement.classList.toggle("rated", Boolean(mark));
    cell.image.setAttribute("aria-label", `Galaxy ${galaxy.id_str}, ${mark ? `rated ${text}${mark.key ? ", not saved yet" : ""}` : "not rated"}`);
    if (place === this.current) this.drawSingle();
  }

  redrawAll() { this.page.forEach((galaxy, place) => this.redraw(place)); }

  move(place, focus = false) {
    for (const cell of this.cells) { cell.image.tabIndex = -1; cell.image.removeAttribute("aria-current"); }
    this.current = place;
    const cell = this.cells[place];
    if (!cell) return;
    cell.image.tabIndex = 0;
    cell.image.setAttribute("aria-current", "true");
    // Whoever reads the galaxy with a screen reader follows it; a button that a pointer pressed keeps its focus.
    if (focus || this.box.contains(document.activeElement)) cell.image.focus({ preventScroll: true });
    if (!this.box.hidden) cell.image.scrollIntoView({ block: "nearest" });
    this.drawSingle();
  }

  drawSingle() {
    const galaxy = this.page[this.current], mark = galaxy && this.mark(galaxy.id_str), [image, text] = this.single.children;
    if (!galaxy) return;
    image.style.backgroundImage = this.images ? `url("${picture(galaxy.id_str)}"), url("${picture(galaxy.id_str, SIDE)}")` : "none";
    image.classList.toggle("bare", !this.images);
    image.textContent = this.images ? "" : galaxy.id_str;
    image.setAttribute("aria-label", `Galaxy ${galaxy.id_str}`);
    text.textContent = `${this.current + 1} of ${this.page.length} · ${mark ? `rated ${said(mark.rating)} ${mark.key ? "…" : "✓"}` : "not rated"}`;
  }

  // Number of cells in a row, by which arrows move up and down.
  get columns() {
    const [first, ...others] = this.cells.map((cell) => cell.image.offsetTop), second = others.findIndex((top) => top > first);
    return second < 0 ? Math.max(this.cells.length, 1) : second + 1;
  }
}
