// What a person rated and took back, in order, until the server says that it is on its disk. It is kept in the browser's
// storage, one item each, so that it outlives the page, the server and the browser. The server knows a rating again by
// who rated what when, so that sending it twice does no harm.
const AT_ONCE = 100, SOONEST = 400, LATEST = 5000, SLOW = 1500, MOST_IDS = 100;

export class Queue {
  // send: { rate(ratings), undo(by, entry) }, promises; changed(): something was saved, failed or refused.
  constructor({ survey, send, changed }) {
    Object.assign(this, { send, changed, waiting: [], refused: [], entries: new Map(), problem: null, delay: SOONEST, sending: false, timer: 0, last: 0 });
    this.prefix = `rarezoo:rate:${survey}:waits:`;
    try {
      const names = Object.keys(localStorage).filter((name) => name.startsWith(this.prefix)).sort();
      for (const name of names) { const kept = JSON.parse(localStorage.getItem(name)); if (kept && kept.key) this.waiting.push(kept); }
    } catch { /* a browser that keeps nothing */ }
    addEventListener("online", () => this.work());
  }

  // now: milliseconds by the clock of the server.
  rate(rating, now) {
    // Two ratings are never of the same moment.
    this.last = Math.max(this.last + 1, Math.round(now));
    const kept = { key: `${this.last}-${Math.random().toString(36).slice(2, 8)}`, rating: { ...rating, at: new Date(this.last).toISOString() } };
    this.add(kept);
    return kept.key;
  }

  // Takes back a rating by its key. One that was not sent yet is only forgotten.
  undo(key, by) {
    const unsent = this.waiting.find((kept) => kept.key === key && kept.rating && !kept.sent);
    if (unsent) { this.forget(unsent); this.changed(); return; }
    this.add({ key: `${key}-undo`, undoes: key, by, entry: this.entries.get(key) ?? null });
  }

  add(kept) { this.waiting.push(kept); this.keep(kept); this.changed(); this.work(); }

  keep(kept) { try { localStorage.setItem(this.prefix + kept.key, JSON.stringify({ ...kept, sent: undefined })); } catch { /* private windows, or a full storage */ } }

  forget(kept) {
    this.waiting = this.waiting.filter((other) => other !== kept);
    try { localStorage.removeItem(this.prefix + kept.key); } catch { /* see keep */ }
  }

  // Galaxies whose ratings wait, the last first; not more than fit into a request.
  get ids() { return this.waiting.filter((kept) => kept.rating).map((kept) => kept.rating.id_str).slice(-MOST_IDS).reverse(); }

  // Whether a person should know that something waits.
  get slow() { return this.problem !== null || (this.waiting.length > 0 && Date.now() - this.began > SLOW); }

  async work() {
    clearTimeout(this.timer);
    if (this.sending || !this.waiting.length) return;
    this.sending = true;
    this.began = Date.now();
    const late = setTimeout(() => this.changed(), SLOW + 50);
    while (this.waiting.length) {
      try { await this.one(); this.problem = null; this.delay = SOONEST; } catch (problem) { this.problem = problem; break; }
      this.began = Date.now();
      this.changed();
    }
    clearTimeout(late);
    this.sending = false;
    if (this.waiting.length) {
      this.changed();
      this.timer = setTimeout(() => this.work(), this.delay);
      this.delay = Math.min(2 * this.delay, LATEST);
    }
  }

  // Sends the ratings at the beginning of the queue, or the one undo.
  async one() {
    const first = this.waiting[0];
    if (!first.rating) {
      const entry = first.entry ?? this.entries.get(first.undoes);
      try { if (entry !== undefined && entry !== null) await this.send.undo(first.by, entry); } catch (problem) { this.turnDown(first, problem); }
      this.forget(first);
      return;
    }
    const end = this.waiting.findIndex((kept) => !kept.rating), batch = this.waiting.slice(0, this.single ? 1 : Math.min(AT_ONCE, end < 0 ? AT_ONCE : end));
    for (const kept of batch) kept.sent = true;
    let saved;
    try { saved = await this.send.rate(batch.map((kept) => kept.rating)); } catch (problem) {
      if (problem.later || batch.length === 1) { this.turnDown(first, problem); this.forget(first); return; }
      // One of them is refused: which one is found by sending them one by one.
      this.single = true;
      return;
    }
    this.single = false;
    batch.forEach((kept, i) => {
      this.entries.set(kept.key, saved[i].entry);
      this.forget(kept);
      for (const later of this.waiting) if (later.undoes === kept.key) { later.entry = saved[i].entry; this.keep(later); }
    });
  }

  // What may go well later stays in the queue; what the server refuses for good is told to the person.
  turnDown(kept, problem) {
    if (problem.later) throw problem;
    this.refused.push({ ...kept, reason: problem.message });
  }
}
