// What one person has said about galaxies: the rating of each label, the artifacts, the tags. A mark is sure when the
// server has it on its disk.
export const GRADE = "grade", ANSWER = "answer", TAG = "tag", ARTIFACT = "artifact";

// A rating in one word.
export function said(rating) {
  if (rating.kind === GRADE) return String(rating.value);
  if (rating.kind === ANSWER) return rating.value === null ? "unsure" : rating.value ? "yes" : "no";
  if (rating.kind === ARTIFACT) return rating.value ? "artifact" : "no artifact";
  return rating.value ? rating.label : `not ${rating.label}`;
}

export class Marks {
  constructor() { this.marks = new Map(); this.recalled = new Set(); }

  // key: of a rating in the queue; null if the server has it.
  set(rating, key = null) {
    const of = this.marks.get(rating.id_str) || new Map();
    of.set(rating.label, { rating, key, before: of.get(rating.label) });
    this.marks.set(rating.id_str, of);
  }

  // Removes a rating that was taken back; what was said before it holds again.
  unset(rating) {
    const of = this.marks.get(rating.id_str), before = of?.get(rating.label)?.before;
    if (before) of.set(rating.label, before); else of?.delete(rating.label);
  }

  // What the server remembers lies under what still waits to be sent.
  recall(rating) {
    const waits = this.marks.get(rating.id_str)?.get(rating.label);
    if (!waits?.key) { this.set(rating); return; }
    let lowest = waits;
    while (lowest.before?.key) lowest = lowest.before;
    lowest.before = { rating, key: null };
  }

  forget(ids) { for (const id of ids) { this.marks.delete(id); this.recalled.delete(id); } }

  // The mark of a label, or that of an artifact.
  of(id, label) {
    const of = this.marks.get(id);
    if (!of) return null;
    const artifact = of.get(ARTIFACT);
    return of.get(label) || (artifact && artifact.rating.value ? artifact : null);
  }

  tags(id) { return [...(this.marks.get(id)?.values() || [])].filter((mark) => mark.rating.kind === TAG && mark.rating.value); }
}
