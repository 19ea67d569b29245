// The classes of the search: a list with examples, the card of the open one as in the atlas, and what was decided.
import { cardOf } from "./card.js";
import { badge, count, el, share, words } from "./dom.js";
import { get, picture, post } from "./rate-api.js";

const $ = (name) => document.getElementById(name);
const SIDE = 128;

export class ClassesPart {
  // show(title, ids, id): show galaxies of a class, one of them the current one; say(text).
  constructor({ images, readOnly, show, say }) { Object.assign(this, { images, readOnly, show, say, classes: null, current: null, past: [] }); this.listen(); }

  async load() {
    if (this.classes) return;
    this.classes = (await get("classes")).classes;
    for (const known of this.classes) $("merge").append(el("option", { value: known.class_id }, `class ${known.class_id}`));
    $("class-list").replaceChildren(...this.classes.map((known) => this.entry(known)));
    this.tally();
  }

  of(id) { return this.classes.find((known) => known.class_id === id); }

  name(known) { const { name } = known.decision; return name || known.name ? `${known.class_id}: ${name || known.name}` : String(known.class_id); }

  style(id) { return this.images ? { backgroundImage: `url("${picture(id, SIDE)}")` } : null; }

  entry(known) {
    const open = (event) => { event.preventDefault(); this.open(known.class_id).catch((problem) => this.say(problem.message)); };
    return el("li", { class: `card${known.grade === "candidate" ? " candidate" : ""}`, "data-class": known.class_id },
      el("h3", {}, el("a", { href: `#class-${known.class_id}`, onclick: open }, `Class ${this.name(known)}`)),
      this.images ? el("div", { class: "sheet", "aria-hidden": "true" }, known.exemplars.map((id) => el("span", { class: "cutout", style: this.style(id) }))) : null,
      el("p", {}, known.grade ? [badge(known.grade), " "] : "", `${count(known.size)} galaxies, ${share(known.fraction)}`),
      el("p", { class: "decided" }, this.decided(known)),
      el("p", { class: "answers" }, (known.top_answers || []).slice(0, 2).map((answer) => el("span", {}, words(answer)))));
  }

  decided({ decision: { decision, merge_into: into } }) { return { keep: "keep", drop: "drop", merge: `merged into class ${into}` }[decision] || "undecided"; }

  tally() {
    const kinds = ["keep", "drop", "merge"].map((kind) => `${this.classes.filter((known) => known.decision.decision === kind).length} ${kind}`);
    $("tally").replaceChildren(`${this.classes.length} classes: ${kinds.join(", ")}. `, el("a", { href: "/api/decisions", download: "decisions.json" }, "decisions for rarezoo classes apply"));
  }

  async open(id) {
    await this.load();
    if (!this.of(id)) return;
    this.current = id;
    this.draw();
    $("card").replaceChildren(el("p", { class: "small" }, "The card is being made; the first one takes longest."));
    const details = await get(`classes/${id}`);
    if (this.current !== id) return;
    const rows = new Map();
    for (const gallery of details.galleries) for (const galaxy of gallery.galaxies) { rows.set(galaxy.row, galaxy.id); galaxy.style = this.style(galaxy.id); }
    const random = details.galleries.find((gallery) => gallery.name === "random") || details.galleries[0];
    $("rate-class").onclick = () => this.show(`Members of class ${id}`, random.galaxies.map((galaxy) => galaxy.id), null);
    $("card").replaceChildren(cardOf(details, {
      choose: (row) => { const gallery = details.galleries.find((known) => known.galaxies.some((galaxy) => galaxy.row === row)); this.show(`${gallery.title} of class ${id}`, gallery.galaxies.map((galaxy) => galaxy.id), rows.get(row)); },
      branch: null, meaning: this.of(id).meaning, cells: async () => details.cells, links: null,
    }));
  }

  draw() {
    const known = this.of(this.current);
    if (!known) return;
    const { decision, name, merge_into: into } = known.decision;
    $("class-title").textContent = `Class ${this.name(known)}`;
    $("deciding").hidden = false;
    $("keep").setAttribute("aria-pressed", decision === "keep"); $("drop").setAttribute("aria-pressed", decision === "drop");
    $("name").value = name; $("merge").value = into ?? "";
    for (const control of [$("keep"), $("drop"), $("name"), $("merge")]) control.disabled = this.readOnly;
    $("class-list").querySelectorAll(".card").forEach((card) => card.toggleAttribute("data-open", Number(card.dataset.class) === this.current));
  }

  // Sends a decision; it is shown as made only when the server has kept it.
  async decide(change, id = this.current) {
    const known = this.of(id);
    if (!known || this.readOnly) return;
    const before = known.decision, next = { ...before, ...change };
    if (next.decision !== "merge") next.merge_into = null;
    try { known.decision = (await post("decisions", next)).decision; } catch (problem) { this.draw(); this.say(problem.message); return; }
    this.past.push([id, before]);
    $("class-list").querySelector(`[data-class="${id}"]`).replaceWith(this.entry(known));
    this.tally();
    this.draw();
    $("decided").textContent = `Class ${id}: ${this.decided(known)}${known.decision.name ? `, “${known.decision.name}”` : ""}, saved.`;
  }

  toggle(decision) { return this.decide({ decision: this.of(this.current)?.decision.decision === decision ? "" : decision }); }

  async undo() {
    const last = this.past.pop();
    if (!last) { $("decided").textContent = "There is nothing to undo."; return; }
    await this.decide(last[1], last[0]);
    this.past.pop();
  }

  step(by) {
    const order = this.classes.map((known) => known.class_id), place = order.indexOf(this.current);
    if (order.length) this.open(order[(place + by + (place < 0 && by < 0 ? 1 : 0) + order.length) % order.length]).catch((problem) => this.say(problem.message));
  }

  listen() {
    $("keep").addEventListener("click", () => this.toggle("keep"));
    $("drop").addEventListener("click", () => this.toggle("drop"));
    $("name").addEventListener("change", () => this.decide({ name: $("name").value.trim() }));
    $("merge").addEventListener("change", () => this.decide($("merge").value === "" ? { decision: "", merge_into: null } : { decision: "merge", merge_into: Number($("merge").value) }));
    this.keys = { "]": () => this.step(1), "[": () => this.step(-1), k: () => this.toggle("keep"), d: () => this.toggle("drop"), n: () => $("name").focus(), u: () => this.undo(), z: () => this.undo() };
  }
}
