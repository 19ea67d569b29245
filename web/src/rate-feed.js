// The galaxies on the page, in pages: those to rate, which the server chooses one page after another, or a fixed list.
import { Refused, get } from "./rate-api.js";

const REMEMBERED = 20;

export class Feed {
  // rated(id): whether the person has rated a galaxy; unsent(): ids whose ratings the server does not have yet;
  // arrived(page): the next page is there.
  constructor({ label, by, count, rated, unsent, arrived }) { Object.assign(this, { label, by, count, rated, unsent, arrived, pages: [], at: -1, coming: null }); }

  get page() { return this.pages[this.at] || []; }

  unrated(page = this.page) { return page.filter((galaxy) => !this.rated(galaxy.id_str)); }

  // Continues with pages that were on the screen before.
  restore(pages, at) { this.pages = pages; this.at = Math.min(Math.max(at, 0), pages.length - 1); }

  // Fetches the next page before it is needed: when half of this one is rated.
  ahead() {
    if (this.coming || this.at < this.pages.length - 1 || this.unrated().length > this.count / 2) return;
    this.fetch().catch(() => {});
  }

  fetch() {
    this.coming ||= this.more().finally(() => { this.coming = null; });
    return this.coming;
  }

  async more() {
    const before = this.pages.slice(-2).flat().map((galaxy) => galaxy.id_str), skip = [...new Set([...before, ...this.unsent()])];
    const { galaxies } = await get("next", { label: this.label, by: this.by, count: this.count, skip });
    const known = new Set(this.pages.flat().map((galaxy) => galaxy.id_str)), fresh = galaxies.filter(({ id_str: id }) => !known.has(id) && !this.rated(id));
    if (galaxies.length && !fresh.length) throw new Refused(0, "Ratings are on their way to the server");
    if (fresh.length) { this.pages.push(fresh); this.arrived(fresh); }
    if (this.pages.length > REMEMBERED) { this.pages.shift(); this.at -= 1; }
  }

  // Goes to the next page; false if nothing is left.
  async next() {
    if (this.at >= this.pages.length - 1) await this.fetch();
    if (this.at >= this.pages.length - 1) return false;
    this.at += 1;
    return true;
  }

  previous() {
    if (this.at <= 0) return false;
    this.at -= 1;
    return true;
  }
}

// A list that is there as a whole.
export class List {
  constructor({ title, galaxies, count, rated }) {
    Object.assign(this, { title, rated, at: 0, pages: [] });
    for (let first = 0; first < galaxies.length; first += count) this.pages.push(galaxies.slice(first, first + count));
  }

  get page() { return this.pages[this.at] || []; }

  unrated(page = this.page) { return page.filter((galaxy) => !this.rated(galaxy.id_str)); }

  ahead() {}

  async next() { if (this.at >= this.pages.length - 1) return false; this.at += 1; return true; }

  previous() { if (this.at <= 0) return false; this.at -= 1; return true; }
}
