// The decisions of a reader about each class. The browser stores them, and they can be saved to a file for `rarezoo classes apply`.
import { csv, download } from "./dom.js";

const HEAD = ["search", "class_id", "size", "decision", "name", "merge_into"];

export class Decisions {
  constructor(map, changed) {
    this.map = map; this.changed = changed; this.key = `rarezoo:${map.search}`; this.sizes = new Map(map.classes.map((known) => [known.id, known.size]));
    this.decided = new Map(); this.past = [];
    try { this.read(JSON.parse(localStorage.getItem(this.key) || "[]")); } catch { /* a browser that keeps nothing */ }
  }

  of(id) { return this.decided.get(id) || { decision: "", name: "", merge_into: null }; }

  name(id) { return this.of(id).name || String(id); }

  // The class that a class is finally merged into.
  end(id) { const { decision, merge_into: next } = this.of(id); return decision === "merge" ? this.end(next) : id; }

  decide(id, change) {
    if (change.decision === "merge" && (!this.sizes.has(change.merge_into) || this.end(change.merge_into) === id)) return false;
    this.past.push([id, this.decided.get(id)]);
    const next = { ...this.of(id), ...change };
    if (next.decision !== "merge") next.merge_into = null;
    this.decided.set(id, next);
    if (!next.decision && !next.name) this.decided.delete(id);
    this.keep();
    return true;
  }

  undo() {
    const last = this.past.pop();
    if (!last) return null;
    if (last[1]) this.decided.set(...last); else this.decided.delete(last[0]);
    this.keep();
    return last[0];
  }

  keep() {
    try { localStorage.setItem(this.key, JSON.stringify(this.rows())); } catch { /* private windows */ }
    this.changed();
  }

  rows() {
    return [...this.decided].sort((a, b) => a[0] - b[0]).map(([id, decision]) => ({ class_id: id, size: this.sizes.get(id), ...decision }));
  }

  // A file may hold anything: what is no decision about a class of this search is left out, and so is a merge in a circle.
  read(rows) {
    for (const row of Array.isArray(rows) ? rows : []) {
      const { class_id: id, decision, name, merge_into: into } = row ?? {}, merges = decision === "merge" && this.sizes.has(into);
      if (!this.sizes.has(id) || (merges && this.end(into) === id)) continue;
      this.decided.set(id, { decision: merges || decision === "keep" || decision === "drop" ? decision : "", name: typeof name === "string" ? name : "", merge_into: merges ? into : null });
    }
  }

  json() { return JSON.stringify({ rarezoo: "decisions", schema: 1, search: this.map.search, title: this.map.title, classes: this.rows() }, null, 2) + "\n"; }

  csv() { return csv([HEAD, ...this.rows().map((row) => HEAD.map((name) => (name === "search" ? this.map.search : row[name] ?? "")))]); }

  save(kind) { if (kind === "csv") download("decisions.csv", this.csv(), "text/csv"); else download("decisions.json", this.json(), "application/json"); }

  // Loads a file that was saved earlier; returns what is wrong with it, or "".
  load(text) {
    let content;
    try { content = JSON.parse(text); } catch { return "The file is not a JSON file of decisions."; }
    if (content?.rarezoo !== "decisions") return "The file does not contain decisions.";
    if (content.search !== this.map.search) return "These decisions belong to another search, which has other classes.";
    this.decided.clear();
    this.read(content.classes);
    this.keep();
    return "";
  }
}
