// The live page: galaxies to rate, and classes to decide about. rarezoo serve answers it under /api/.
import { count, el, number } from "./dom.js";
import { get, post } from "./rate-api.js";
import { ClassesPart } from "./rate-classes.js";
import { Feed, List } from "./rate-feed.js";
import { Grid } from "./rate-grid.js";
import { ANSWER, ARTIFACT, GRADE, Marks, TAG, said } from "./rate-marks.js";
import { Panel } from "./rate-panel.js";
import { Queue } from "./rate-queue.js";
import { stretching } from "./stretch.js";

const $ = (name) => document.getElementById(name);
// Blind draws from which on the page shows how many are left: before, the interval says nothing.
const FEWEST_DRAWS = 10;
const AGAIN = 2000, PROGRESS = 600, LONGEST_LOOK = 3600, NEW = "new label …";
const NOTHING = "Nothing is left to rate: every galaxy is rated, or somebody else is looking at it.";
const plural = (n, one, several = `${one}s`) => `${count(n)} ${n === 1 ? one : several}`;

// What the browser remembers, for each survey; a browser that keeps nothing forgets it with the page.
function memory(survey) {
  const name = (key) => `rarezoo:rate:${survey}:${key}`;
  return {
    get(key, otherwise) { try { return JSON.parse(localStorage.getItem(name(key))) ?? otherwise; } catch { return otherwise; } },
    set(key, value) { try { localStorage.setItem(name(key), JSON.stringify(value)); } catch { /* private windows */ } },
  };
}

// Asks in a dialog; null if the person closed it.
function ask(dialog, input, value = "") {
  dialog.querySelector(".cancel")?.addEventListener("click", () => dialog.close(""), { once: true });
  input.value = value;
  dialog.returnValue = "";
  dialog.showModal();
  input.select();
  return new Promise((resolve) => { dialog.addEventListener("close", () => resolve(dialog.returnValue === "ok" && input.value.trim() ? input.value.trim() : null), { once: true }); });
}

async function begin() {
  // The token stays in the cookie, and not in the address and the history.
  history.replaceState(null, "", location.pathname + location.hash);
  let about;
  for (;;) {
    try { about = await get("about"); break; } catch (problem) {
      nothing(problem.message);
      if (!problem.later) return null;
      await new Promise((resolve) => { setTimeout(resolve, AGAIN); });
    }
  }
  return start(about);
}

function nothing(text) { $("nothing").textContent = text; $("nothing").hidden = !text; }

async function start(about) {
  const kept = memory(about.survey), marks = new Marks(), began = performance.now();
  // The time of the server, whatever the clock of this computer says or does.
  const now = () => Date.parse(about.now) + performance.now() - began;
  let by = kept.get("by", about.by), label = kept.get("label", "interesting"), feed = null, list = null, current = 0, since = Date.now(), past = [], turning = false, timer = 0, tagged = kept.get("tag", "");
  const tags = new Set(Object.keys(about.tags)), labels = new Set(["interesting", ...about.labels.map((known) => known.label).filter((name) => name !== ARTIFACT), label]);

  const say = (text) => { $("message").textContent = text; };
  const mark = (id) => marks.of(id, label), rated = (id) => Boolean(mark(id));
  const shown = () => list || feed, galaxy = () => shown()?.page[current];
  const size = () => Number($("count").value);

  const queue = new Queue({
    survey: about.survey, changed: saved,
    send: { rate: async (ratings) => (await post("ratings", { ratings })).saved, undo: (person, entry) => post("undo", { by: person, entry }) },
  });
  const grid = new Grid({ box: $("cells"), single: $("single"), images: about.images, mark, chosen: (place) => { move(place); } });
  const panel = new Panel({ images: about.images, by: () => by, mark, tags: (id) => marks.tags(id), following: () => shown()?.page[unrated(current)]?.id_str, untag: (name) => tag(name, 0), openClass: (id) => { part("classes"); classes.open(id).catch(fail); }, choose: (id) => like([id], `Galaxy ${id} and those most like it`) });
  const classes = new ClassesPart({ images: about.images, readOnly: about.read_only, say: (text) => { $("decided").textContent = text; }, show: (title, ids, id) => { part("galaxies"); open(title, ids.map((one) => ({ id_str: one, why: "class" })), id).catch(fail); } });
  const fail = (problem) => say(problem.message);

  // --- what is on the page

  function draw() {
    const page = shown().page;
    since = Date.now();
    nothing(page.length ? "" : list ? "Nothing was found." : NOTHING);
    $("list-title").textContent = list ? list.title : label === "interesting" ? "Galaxies to rate" : `Galaxies to rate: ${label}`;
    $("back").hidden = !list;
    $("before").disabled = shown().at <= 0;
    $("after").disabled = Boolean(list) && shown().at >= shown().pages.length - 1;
    grid.show(page, current);
    panel.show(galaxy());
    remember();
  }

  function remember() {
    if (feed) kept.set(`place:${by}:${label}`, { pages: feed.pages.slice(Math.max(feed.at, 0)), current: list ? 0 : current });
  }

  // Asks what this person has said about some galaxies, for example after the page was loaded again.
  async function recall(galaxies) {
    const ids = galaxies.map((one) => one.id_str).filter((id) => !marks.recalled.has(id));
    if (!ids.length || !by) return;
    const { ratings } = await get("ratings", { by, id: ids });
    for (const rating of ratings) marks.recall(rating);
    for (const id of ids) marks.recalled.add(id);
  }

  function move(place, focus = false) {
    if (place !== current) since = Date.now();
    current = place;
    grid.move(place, focus);
    panel.show(galaxy());
    remember();
  }

  // The first galaxy of the page after a place that is not rated; −1 if there is none.
  function unrated(after) {
    const { page } = shown(), order = page.map((_, k) => (after + 1 + k) % page.length);
    return order.find((place) => !rated(page[place].id_str)) ?? -1;
  }

  async function next() {
    const from = shown();
    turning = true;
    try {
      while (!await turn(from)) {
        await new Promise((resolve) => { setTimeout(resolve, AGAIN); });
        if (from !== shown()) return;
      }
    } finally { turning = false; }
  }

  // Turns to the next page; false if the server does not answer now.
  async function turn(from) {
    let there;
    try { there = await from.next(); } catch (problem) {
      if (from === shown()) say(problem.later ? `${problem.message} The next page comes when the server is back.` : problem.message);
      return !problem.later;
    }
    if (from !== shown()) return true;
    if (there) { current = list ? 0 : Math.max(unrated(-1), 0); if ($("message").textContent.endsWith("is back.")) say(""); draw(); }
    else if (list) say("This was the last page of the list.");
    else nothing(NOTHING);
    return true;
  }

  // fresh: without the page that was on the screen before.
  async function restart({ fresh = false } = {}) {
    const before = fresh ? null : kept.get(`place:${by}:${label}`, null);
    list = null;
    feed = new Feed({ label, by, count: size(), rated, unsent: () => queue.ids, arrived: (page) => { grid.warm(page); remember(); } });
    $("show").value = "next";
    say("");
    progress();
    if (before?.pages?.length) {
      await recall(before.pages.flat());
      feed.restore(before.pages, 0);
      current = Math.min(before.current, feed.page.length - 1);
      if (rated(feed.page[current].id_str)) current = unrated(current);
      if (current >= 0) { draw(); feed.ahead(); return; }
    }
    await next();
  }

  async function open(title, galaxies, id = null) {
    await recall(galaxies);
    list = new List({ title, galaxies, count: size(), rated });
    const place = id === null ? -1 : galaxies.findIndex((one) => one.id_str === id);
    current = Math.max(place, 0) % size();
    list.at = Math.floor(Math.max(place, 0) / size());
    say("");
    draw();
  }

  async function like(ids, title) {
    const { galaxies, message } = await get("similar", { id: ids, k: 47 });
    await open(title, [...ids.map((id) => ({ id_str: id, why: "example" })), ...galaxies.map((one) => ({ ...one, why: "similar" }))]);
    if (message) say(message);
  }

  function back() {
    list = null;
    $("show").value = "next";
    say("");
    if (unrated(-1) < 0) { next().catch(fail); return; }
    current = unrated(-1);
    draw();
  }

  const lists = {
    next: async () => back(),
    ranking: async () => { const { galaxies } = await get("ranking", { label, first: 480 }); await open("Best first", galaxies.map((one) => ({ ...one, why: "ranking" }))); if (!galaxies.length) nothing("There is no ranking before the first ratings."); },
    mine: async () => { const { ratings } = await get("ratings", { by, label, first: 480 }); await open("What I rated, the last first", ratings.map((rating) => ({ id_str: rating.id_str, why: "again", round: 0 }))); },
  };

  // --- rating

  function rate(kind, value, name = label) {
    const one = galaxy();
    if (!one || about.read_only) return;
    // The galaxy on the screen is rated already, and must not get the rating that is meant for the next one.
    if (turning) { say("The next page is not there yet."); return; }
    if (!by) { who().then(() => by && rate(kind, value, name)); return; }
    const rating = { id_str: one.id_str, label: kind === ARTIFACT ? ARTIFACT : name, kind, value, by, why: one.why || "", round: one.round || 0, seconds: Math.min(LONGEST_LOOK, (Date.now() - since) / 1000) };
    const key = queue.rate(rating, now());
    marks.set(rating, key);
    past.push({ key, rating });
    if (kind === TAG) { grid.redraw(current); panel.show(one); return; }
    grid.redraw(current);
    shown().ahead();
    const place = unrated(current);
    if (place >= 0) move(place); else if (!list) next().catch(fail); else { panel.show(one); say("Every galaxy of this page is rated."); }
  }

  function tag(name, value = 1) {
    rate(TAG, value, name);
    tags.add(name); labels.add(name);
    tagged = name;
    kept.set("tag", name);
    options();
  }

  async function askTag() {
    if (!galaxy() || about.read_only) return;
    $("tagging-title").textContent = "Tag";
    $("tagging-about").textContent = `A tag is a word of your own. Galaxies with the same tag are examples of it.`;
    const name = await ask($("tagging"), $("tagging-name"), tagged);
    if (name === "interesting" || name === ARTIFACT) say(`“${name}” is no tag; choose another word.`);
    else if (name) tag(name);
  }

  function undo() {
    if (about.read_only) return;
    const last = past.pop();
    if (!last) { undoEarlier().catch(fail); return; }
    queue.undo(last.key, last.rating.by);
    marks.unset(last.rating);
    returnTo(last.rating);
    say(`${last.rating.id_str}: ${said(last.rating)} is taken back.`);
  }

  // Takes back the last rating that was made before the page was loaded.
  async function undoEarlier() {
    const { undone } = await post("undo", { by });
    if (!undone) { say("There is nothing to undo."); return; }
    marks.forget([undone.id_str]);
    await recall([undone]);
    returnTo(undone);
    say(`${undone.id_str}: the last rating is taken back.`);
    progress();
  }

  function returnTo({ id_str: id }) {
    const from = shown(), page = from.pages.findIndex((galaxies) => galaxies.some((one) => one.id_str === id));
    if (page < 0) { grid.redrawAll(); panel.show(galaxy()); return; }
    from.at = page;
    current = from.page.findIndex((one) => one.id_str === id);
    draw();
  }

  // After something was saved, failed or refused.
  function saved() {
    if (!feed) return;
    let last = null;
    for (const of of marks.marks.values()) for (const one of of.values()) if (one.key && queue.entries.has(one.key)) { one.key = null; last = one.rating; }
    for (const { rating, reason } of queue.refused.splice(0)) {
      if (rating) marks.unset(rating);
      say(`Not saved: ${rating ? `${rating.id_str}: ` : ""}${reason}`);
      last = null;
    }
    grid.redrawAll();
    if (galaxy()) panel.rated();
    if (last && !queue.problem) say(`${last.id_str}: ${said(last)}, saved.`);
    const many = queue.waiting.length;
    $("waiting").textContent = many && queue.slow ? `${plural(many, "rating waits", "ratings wait")} for the server.${queue.problem && queue.problem.status ? ` ${queue.problem.message}` : ""}` : "";
    if (last) { clearTimeout(timer); timer = setTimeout(progress, PROGRESS); }
  }

  async function progress() {
    let done;
    try { done = await get("progress", { label }); } catch { return; }
    const left = done.left && done.left.draws >= FEWEST_DRAWS ? `; about ${count(Math.round(done.left.estimate))} more to find (${count(Math.round(done.left.low))} to ${count(Math.round(done.left.high))})` : "";
    const people = done.people.length > 1 ? `; ${done.people.length} people${done.agreement === null ? "" : `, agreement ${number(done.agreement)}`}` : "";
    $("progress").textContent = `${count(done.rated)} of ${count(done.galaxies)} rated, ${count(done.interesting)} interesting, ${plural(done.artifacts, "artifact")}${left}${people}`;
    $("progress").title = "How many are left is estimated from the galaxies that were drawn at random (90 % interval). Agreement is Krippendorff's alpha: 1 is complete, 0 is that of chance.";
  }

  // --- choices

  function options() {
    $("label").replaceChildren(...[...labels].map((name) => el("option", { value: name, selected: name === label }, name)), el("option", { value: NEW }, NEW));
    $("tags").replaceChildren(...[...tags].map((name) => el("option", { value: name })));
    $("people").replaceChildren(...about.people.map((name) => el("option", { value: name })));
  }

  async function who() {
    const name = await ask($("person"), $("person-name"), by);
    if (!name) return;
    by = name;
    kept.set("by", by);
    marks.forget([...marks.recalled, ...marks.marks.keys()]);
    past = [];
    $("who").textContent = `rater: ${by}`;
    await restart();
  }

  async function judge(name) {
    if (name === NEW) {
      $("tagging-title").textContent = "A new label";
      $("tagging-about").textContent = "What do you want to judge? For example: ring, merger, dust lane.";
      name = await ask($("tagging"), $("tagging-name"));
      if (name === ARTIFACT) { say("Mark artifacts with x; they are no label of their own."); name = null; }
    }
    if (name) { label = name; labels.add(name); kept.set("label", label); }
    options();
    if (name) await restart();
  }

  async function find(text) {
    if (!text.trim()) return;
    const found = await get("find", { q: text });
    if (!found.galaxies.length) { say(found.message || "Nothing was found."); return; }
    part("galaxies");
    await open(found.title, found.galaxies.map((one) => ({ why: found.why, ...one })));
    say(found.message || "");
  }

  function part(wanted) {
    for (const button of document.querySelectorAll("[role=tab]")) {
      const on = button.dataset.tab === wanted;
      button.setAttribute("aria-selected", on); button.tabIndex = on ? 0 : -1;
      $(`part-${button.dataset.tab}`).hidden = !on;
    }
    if (wanted === "classes") classes.load().catch(fail);
    else since = Date.now();
  }

  function single() {
    const on = $("single").hidden;
    $("single").hidden = !on; $("cells").hidden = on;
    $("one").setAttribute("aria-pressed", on);
    document.body.classList.toggle("one", on);
    kept.set("one", on);
    grid.move(current);
  }

  // --- keys and buttons

  const step = (by) => { const place = current + by; if (place >= 0 && place < shown().page.length) move(place, true); else if (place >= shown().page.length) say("This is the last galaxy of the page; Page Down shows the next page."); };
  const keys = {
    y: () => rate(ANSWER, 1), n: () => rate(ANSWER, 0), u: () => rate(ANSWER, null), x: () => rate(ARTIFACT, 1), t: askTag, z: undo, g: single,
    ArrowRight: () => step(1), ArrowLeft: () => step(-1), ArrowDown: () => step(document.body.classList.contains("one") ? 1 : grid.columns), ArrowUp: () => step(document.body.classList.contains("one") ? -1 : -grid.columns),
    Home: () => move(0, true), End: () => move(shown().page.length - 1, true), PageDown: () => $("after").click(), PageUp: () => $("before").click(),
    w: () => { $("why").open = !$("why").open; $("why").scrollIntoView({ block: "nearest" }); }, m: () => $("more").click(), "/": () => $("wanted").focus(), "?": () => $("keys").showModal(),
    ...Object.fromEntries(Array.from({ length: 6 }, (_, grade) => [String(grade), () => rate(GRADE, grade)])),
  };
  document.addEventListener("keydown", (event) => {
    const inClasses = !$("part-classes").hidden, act = (inClasses ? { ...classes.keys, "/": keys["/"], "?": keys["?"] } : keys)[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat && !event.key.startsWith("Arrow") || document.querySelector("dialog[open]")) return;
    if (event.target.matches("input:not([type=checkbox]), select, textarea")) { if (event.key === "Escape") event.target.blur(); return; }
    // Arrows move among the tabs there, and scroll the panel.
    if (event.key.length > 1 && (event.target.closest("[role=tablist], #panel, #class-panel") || inClasses)) return;
    if (!act || !$("shortcuts").checked) return;
    event.preventDefault();
    if (shown() || inClasses || event.key === "/" || event.key === "?") act(); else who().catch(fail);
  });
  document.querySelectorAll("[data-rate]").forEach((button) => {
    button.disabled = about.read_only;
    button.addEventListener("click", () => rate(button.dataset.rate, button.dataset.value === "" ? null : Number(button.dataset.value)));
  });
  for (const name of ["tag", "undo"]) $(name).disabled = about.read_only;
  $("tag").addEventListener("click", askTag); $("undo").addEventListener("click", undo); $("one").addEventListener("click", single);
  $("more").addEventListener("click", () => { if (galaxy()) like([galaxy().id_str], `Most like ${galaxy().id_str}`).catch(fail); });
  $("back").addEventListener("click", back);
  $("before").addEventListener("click", () => { if (!turning && shown()?.previous()) { current = 0; draw(); } });
  $("after").addEventListener("click", () => { if (!turning) next().catch(fail); });
  $("show").addEventListener("change", () => lists[$("show").value]().catch(fail));
  $("count").addEventListener("change", () => { kept.set("count", $("count").value); restart({ fresh: true }).catch(fail); });
  $("label").addEventListener("change", () => judge($("label").value).catch(fail));
  $("who").addEventListener("click", () => who().catch(fail));
  $("help").addEventListener("click", () => $("keys").showModal());
  $("find").addEventListener("submit", (event) => { event.preventDefault(); find($("wanted").value).catch(fail); });
  $("shortcuts").checked = kept.get("shortcuts", true);
  $("shortcuts").addEventListener("change", () => kept.set("shortcuts", $("shortcuts").checked));
  for (const button of document.querySelectorAll("[role=tab]")) {
    button.addEventListener("click", () => part(button.dataset.tab));
    button.addEventListener("keydown", (event) => { if (event.key === "ArrowRight" || event.key === "ArrowLeft") { const other = [...document.querySelectorAll("[role=tab]")].find((tab) => tab !== button && !tab.hidden); if (other) { part(other.dataset.tab); other.focus(); } } });
  }
  addEventListener("beforeunload", remember);

  $("tab-classes").hidden = about.classes === null;
  $("count").value = kept.get("count", "24");
  stretching();
  options();
  if (kept.get("one", false)) single();
  if (about.read_only) { $("who").hidden = true; say("This page is read-only."); }
  for (const waits of queue.waiting) if (waits.rating) marks.set(waits.rating, waits.key);
  if (by) { $("who").textContent = `rater: ${by}`; await restart().catch(fail); } else if (about.read_only) await restart().catch(fail); else { nothing("Say who rates, to begin."); await who(); }
  queue.work();
  return { queue, marks, state: () => ({ by, label, current, list, feed }) };
}

window.rarezooRate = begin();
