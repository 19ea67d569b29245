// The atlas page: the map, and beside it the class, the selection and the decisions.
import { branches } from "./branch.js";
import { card } from "./card.js";
import { data } from "./columns.js";
import { Decisions } from "./decisions.js";
import { count, el } from "./dom.js";
import { galaxy } from "./galaxy.js";
import { mapIn } from "./map.js";
import { members } from "./points.js";
import { search } from "./search.js";
import { selection } from "./selection.js";
import { stretching } from "./stretch.js";

const CANDIDATE = "candidate";
const $ = (name) => document.getElementById(name);

export function atlasPage(map) {
  const decisions = new Decisions(map, () => { showDecisions(); atlas.redraw(); });
  const order = map.classes.map((known) => known.id), gradeOf = new Map(map.classes.map((known) => [known.id, known.grade]));
  const hidden = (id) => gradeOf.get(id) === CANDIDATE && !$("candidates").checked;
  let current = -1, timer = 0;
  const name = (id) => decisions.name(id);
  const say = (words) => { $("message").textContent = words; clearTimeout(timer); timer = setTimeout(() => { $("message").textContent = ""; }, 6000); };
  const fail = (problem) => say(problem.message);

  const atlas = mapIn(document.querySelector(".map"), map, {
    name, line: select, chosen: (row, id) => { if (id >= 0) open(id).catch(fail); if (row >= 0) choose(row, false); else atlas.only(null); },
  });
  const about = { map, atlas, name, open: (id) => open(id), choose: (row) => choose(row, true) };

  function choose(row, move) {
    atlas.ring(row);
    if (move) {
      const { view, p } = atlas, [x, y] = view.screen(p.xy[2 * row], p.xy[2 * row + 1]);
      if (x < 0 || y < 0 || x > view.w || y > view.h) { view.x += view.w / 2 - x; view.y -= view.h / 2 - y; atlas.redraw(); }
    }
    return galaxy($("galaxy"), row, about).catch(fail);
  }

  async function open(id) {
    if (hidden(id)) { $("candidates").checked = true; showCandidates(); }
    current = id;
    atlas.only([id]);
    tab("class");
    history.replaceState(null, "", `#class-${id}`);
    showDecisions();
    const tree = $("branch-of") || el("div", { id: "branch-of" });
    const content = await card(id, about.choose, tree, map.meanings);
    if (current !== id) return;
    $("card").replaceChildren(content);
    await branch(id, content.querySelector("#branch-of"));
  }
  const ways = {
    name, open: (id) => open(id), mark: (ids) => { atlas.only(ids); atlas.show(members(atlas.p, ids)); say(`Classes ${ids.map(name).join(", ")} are marked.`); },
    colour: (id) => `var(--class-${map.classes.find((known) => known.id === id).colour})`,
  };
  async function branch(id, box) {
    const tree = await data("tree"), opened = map.classes.find((known) => known.id === id);
    if (tree.node.includes(opened.node)) branches(tree, opened.node, ways)(box, opened.node);
    else box.replaceChildren(el("p", { class: "small" }, "The tree has no branch for this class."));
  }
  function close() {
    current = -1;
    atlas.only(null);
    history.replaceState(null, "", location.pathname + location.search);
    $("card").replaceChildren();
    showDecisions();
  }
  function step(by) {
    const shown = order.filter((id) => !hidden(id));
    if (shown.length) open(shown[(shown.indexOf(current) + by + (current < 0 && by < 0 ? 1 : 0) + shown.length) % shown.length]).catch(fail);
  }

  // Fills the list of classes, by grade, and draws on the map those that are shown.
  function showCandidates() {
    const shown = order.filter((id) => !hidden(id)), listed = $("class-picker"), options = (ids) => ids.map((id) => el("option", { value: id }, labelled(id)));
    atlas.keep(shown);
    if (hidden(current)) close();
    const grades = [...new Set(shown.map((id) => gradeOf.get(id)))];
    listed.replaceChildren(el("option", { value: "" }, "choose a class"),
      ...(grades.some(Boolean) ? grades.map((grade) => el("optgroup", { label: grade || "without a grade" }, options(shown.filter((id) => gradeOf.get(id) === grade)))) : options(shown)));
    showDecisions();
  }

  function select(rows) {
    atlas.pick(rows);
    $("galaxy").hidden = true;
    tab("selection");
    return selection($("selected"), rows, about).catch(fail);
  }
  function tab(wanted) {
    for (const button of document.querySelectorAll("[role=tab]")) {
      const on = button.dataset.tab === wanted;
      button.setAttribute("aria-selected", on); button.tabIndex = on ? 0 : -1;
      $(`panel-${button.dataset.tab}`).hidden = !on;
    }
  }

  // Shows the decisions about the open class and about all classes.
  function showDecisions() {
    const { decision, merge_into: into } = decisions.of(current), rows = decisions.rows();
    $("class-title").textContent = current < 0 ? "No class is open" : `Class ${name(current) === String(current) ? current : `${current}: ${name(current)}`}`;
    $("class-place").textContent = current < 0 ? `${order.filter((id) => !hidden(id)).length} classes. Click a class on the map or press ] to open one.` : `number ${order.indexOf(current) + 1} of ${order.length} by ${map.measure}${gradeOf.get(current) ? `: ${gradeOf.get(current)}` : ""}`;
    $("class-picker").value = current < 0 ? "" : current;
    $("deciding").hidden = current < 0;
    $("keep").setAttribute("aria-pressed", decision === "keep"); $("drop").setAttribute("aria-pressed", decision === "drop");
    $("name").value = decisions.of(current).name; $("merge").value = into ?? "";
    $("decided").replaceChildren(...rows.map((row) => el("tr", {},
      el("th", { scope: "row" }, el("button", { type: "button", class: "plain", onclick: () => open(row.class_id) }, `class ${row.class_id}`)),
      el("td", {}, row.decision === "merge" ? `merged into ${name(row.merge_into)}` : row.decision || "–"), el("td", {}, row.name))));
    $("tally").textContent = `${rows.length} of ${map.classes.length} classes have a decision: ${["keep", "drop", "merge"].map((kind) => `${rows.filter((row) => row.decision === kind).length} ${kind}`).join(", ")}.`;
    for (const option of $("class-picker").options) if (option.value) option.textContent = labelled(Number(option.value));
  }
  const labelled = (id) => { const mine = decisions.of(id), labelledClass = map.classes.find((known) => known.id === id); return `${id}${mine.name ? ` ${mine.name}` : ""} (${count(labelledClass.size)})${labelledClass.group === null ? "" : `, group ${labelledClass.group}`}${mine.decision ? ` – ${mine.decision}` : ""}`; };
  function decide(change) {
    if (current < 0) { say("Open a class first."); return; }
    if (!decisions.decide(current, change)) { say("A class cannot be merged into itself or into a class that is merged into it."); showDecisions(); return; }
    const { decision, name: newName, merge_into: into } = decisions.of(current);
    say(`Class ${current}: ${decision === "merge" ? `merged into ${into}` : decision || "undecided"}${newName ? `, “${newName}”` : ""}.`);
  }
  const toggle = (decision) => decide({ decision: decisions.of(current).decision === decision ? "" : decision });

  for (const id of order) $("merge").append(el("option", { value: id }, `class ${id}`));
  $("hiding").hidden = ![...gradeOf.values()].includes(CANDIDATE);
  $("candidates").addEventListener("change", showCandidates);
  for (const group of ["predicted answers", "catalogue", "search"]) {
    const columns = map.columns.filter((column) => column.group === group);
    if (columns.length) $("colour").append(el("optgroup", { label: group }, columns.map((column) => el("option", { value: column.key }, column.label))));
  }
  $("colour").addEventListener("change", () => colour($("colour").value).catch(fail));
  async function colour(key) {
    const column = map.columns.find((known) => known.key === key) || null;
    await atlas.colourBy(column);
    atlas.only(null);
    $("legend").hidden = !column;
    if (!column) return;
    const steps = column.kind === "category" ? column.names.map((category, i) => el("li", {}, el("i", { style: { background: i < 8 ? `var(--class-${i})` : "var(--point)" } }), category))
      : [el("li", {}, Number(column.low.toPrecision(3))), el("li", { class: "ramp", style: { background: atlas.ramp() } }), el("li", {}, Number(column.high.toPrecision(3)))];
    $("legend").replaceChildren(...steps);
  }

  $("class-picker").addEventListener("change", (event) => { if (event.target.value !== "") open(Number(event.target.value)).catch(fail); });
  $("previous").addEventListener("click", () => step(-1)); $("next").addEventListener("click", () => step(1));
  $("keep").addEventListener("click", () => toggle("keep")); $("drop").addEventListener("click", () => toggle("drop"));
  $("undo").addEventListener("click", () => { const id = decisions.undo(); say(id === null ? "There is nothing to undo." : `Class ${id}: the last change is undone.`); });
  $("name").addEventListener("change", () => decide({ name: $("name").value.trim() }));
  $("merge").addEventListener("change", () => decide($("merge").value === "" ? { decision: "" } : { decision: "merge", merge_into: Number($("merge").value) }));
  $("save-json").addEventListener("click", () => decisions.save("json")); $("save-csv").addEventListener("click", () => decisions.save("csv"));
  $("load").addEventListener("change", async () => { const [chosen] = $("load").files; if (chosen) say(decisions.load(await chosen.text()) || "The decisions were loaded."); $("load").value = ""; });
  $("find").addEventListener("submit", (event) => {
    event.preventDefault();
    search($("wanted").value, map, decisions).then(async (target) => {
      if (target.problem) { say(target.problem); return; }
      if (target.id !== undefined) { await open(target.id); return; }
      const id = atlas.p.label[target.row];
      if (order.includes(id)) await open(id);
      await choose(target.row, true);
      if (target.message) say(target.message);
    }).catch(fail);
  });
  for (const button of document.querySelectorAll("[role=tab]")) {
    button.addEventListener("click", () => tab(button.dataset.tab));
    button.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key], all = [...document.querySelectorAll("[role=tab]")];
      if (by) { const next = all[(all.indexOf(button) + by + all.length) % all.length]; tab(next.dataset.tab); next.focus(); }
    });
  }
  const keys = {
    "]": () => step(1), "[": () => step(-1), k: () => toggle("keep"), d: () => toggle("drop"), n: () => { tab("class"); $("name").focus(); }, m: () => { tab("class"); $("merge").focus(); },
    u: () => $("undo").click(), s: () => decisions.save("json"), "/": () => $("wanted").focus(), l: () => document.querySelector("[data-tool=lasso]").click(), "?": () => { tab("decisions"); $("keys").open = true; $("keys").scrollIntoView(); },
    Escape: () => { atlas.only(null); atlas.ring(-1); $("galaxy").hidden = true; },
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key] || !$("shortcuts").checked && event.key !== "Escape") return;
    if (event.target.matches("input:not([type=checkbox], [type=range]), select, textarea")) { if (event.key === "Escape") event.target.blur(); return; }
    event.preventDefault();
    keys[event.key]();
  });
  stretching();
  showCandidates();
  const openedByLink = location.hash.match(/^#class-(\d+)$/);
  if (openedByLink && order.includes(Number(openedByLink[1]))) open(Number(openedByLink[1])).catch(fail);
  return { ...atlas, decisions, open, select, colour, choose };
}
