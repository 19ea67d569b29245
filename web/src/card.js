// The card of a class: numbers, galleries, answers, catalogue, sky.
import { data } from "./columns.js";
import { count, el, file, number, share, words } from "./dom.js";

const SKY = { wide: 360, high: 180 };
const shownQ = (q) => (q === null ? "–" : q < 1e-20 ? "< 1e-20" : q < 0.001 ? q.toExponential(0) : q.toFixed(3));

const measuredShare = (value) => (value === null ? "not measured" : share(value));

function facts(one) {
  const rows = [
    ["galaxies", count(one.size)], ["share", share(one.share)], ["persistence", number(one.persistence)], ["significance", number(one.significance)],
    ["chance in noise", measuredShare(one.p_value)], ["false discovery", measuredShare(one.false_discovery)],
    ["stability", one.stability === null ? "not measured" : one.stability.toFixed(2)], ["beyond the answers", measuredShare(one.beyond)], ["telescope", one.cause || "not tested"],
  ];
  return el("dl", { class: "facts" }, rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

// Galaxies as buttons, each with its image or, without images, its id.
export function sheet(galaxies, choose, image = null) {
  return el("ul", { class: "sheet", style: image ? { backgroundImage: `url(${image.path})` } : {} }, galaxies.map((one) => el("li", {},
    el("button", {
      type: "button", class: `cutout${image || one.style ? "" : " bare"}`, "data-row": one.row, title: one.membership ? `${one.id} · ${one.membership}` : one.id,
      "aria-label": `Galaxy ${one.id}${one.membership ? `, ${one.membership}` : ""}`, onclick: () => choose(one.row),
      style: image ? { backgroundPosition: `${one.across}% ${one.down}%`, backgroundSize: `${100 * image.wide}% ${100 * image.high}%` } : one.style || {},
    }, image || one.style ? "" : one.id))));
}

function galleries(one, choose) {
  return one.galleries.map((found, place) => el("details", { open: place < 2, class: "block" }, el("summary", {}, found.title), el("p", { class: "small" }, found.about),
    found.galaxies.length ? sheet(found.galaxies, choose, found.image ? { path: found.image, wide: found.wide, high: found.high } : null) : el("p", {}, "None.")));
}

function answers(one) {
  if (!one.answers.length) return el("p", { class: "small" }, "The embedding store has no predicted answers.");
  return el("table", {}, el("thead", {}, el("tr", {}, ["answer", "class", "sample", "effect", "q"].map((name, i) => el("th", { scope: "col", class: i ? "n" : null }, name)))),
    el("tbody", {}, one.answers.map((row) => el("tr", {}, el("th", { scope: "row" }, words(row.name)),
      [row.inside.toFixed(2), row.sample.toFixed(2), (row.effect > 0 ? "+" : "") + row.effect.toFixed(2), shownQ(row.q)].map((value) => el("td", { class: "n" }, value))))));
}

function tests(one) {
  if (!one.tests.length) return el("p", { class: "small" }, "No catalogue column could be tested.");
  return el("table", {}, el("thead", {}, el("tr", {}, ["column", "difference", "effect", "q"].map((name, i) => el("th", { scope: "col", class: i > 1 ? "n" : null }, name)))),
    el("tbody", {}, one.tests.map((row) => el("tr", { class: row.raised ? "raised" : null }, el("th", { scope: "row" }, row.column), el("td", {}, row.words), el("td", { class: "n" }, row.effect.toFixed(2)), el("td", { class: "n" }, shownQ(row.q))))));
}

// Grey cells: galaxies searched. Dots: members. Equal angles, east to the left.
async function drawSky(canvas, one) {
  const { wide, high, counts } = await data("sky"), pen = canvas.getContext("2d"), style = getComputedStyle(canvas), most = Math.log1p(Math.max(...counts));
  canvas.width = 2 * SKY.wide; canvas.height = 2 * SKY.high;
  pen.scale(2, 2);
  pen.fillStyle = style.getPropertyValue("--page"); pen.fillRect(0, 0, SKY.wide, SKY.high);
  pen.fillStyle = style.getPropertyValue("--point");
  counts.forEach((found, i) => {
    if (!found) return;
    pen.globalAlpha = 0.15 + 0.5 * Math.log1p(found) / most;
    pen.fillRect(SKY.wide - (i % wide + 1) * SKY.wide / wide, SKY.high - (Math.floor(i / wide) + 1) * SKY.high / high, SKY.wide / wide, SKY.high / high);
  });
  pen.globalAlpha = 0.85; pen.fillStyle = style.getPropertyValue("--accent");
  one.sky.ra.forEach((ra, i) => { pen.beginPath(); pen.arc(SKY.wide - ra, SKY.high / 2 - one.sky.dec[i], 1.8, 0, 7); pen.fill(); });
}

function skyOf(one) {
  if (!one.sky || !one.sky.ra.length) return el("p", { class: "small" }, "The positions of its members on the sky are unknown.");
  const { ra, dec } = one.sky, text = `${count(ra.length)} members between declinations ${Math.min(...dec).toFixed(1)}° and ${Math.max(...dec).toFixed(1)}°`;
  const canvas = el("canvas", { class: "sky", role: "img", "aria-label": `Sky: ${text}` });
  requestAnimationFrame(() => drawSky(canvas, one));
  return [canvas, el("p", { class: "small" }, `${text}. Grey: all galaxies searched. Right ascension runs from 0° on the right to 360° on the left.`)];
}

const block = (title, open, ...inner) => el("details", { class: "block", open }, el("summary", {}, title), ...inner);

// Returns the element of the card; a click on a galaxy calls choose(row).
export async function card(id, choose, branch) {
  const one = await data(`card-${String(id).padStart(3, "0")}`);
  const warned = [...one.warnings.map(words), ...(one.cause && one.cause !== "clean" ? [`${one.cause}: ${one.cause_reason}`] : [])];
  return el("div", {}, facts(one),
    one.group ? el("p", { class: "small" }, `One of ${one.group.classes.length} classes in group ${one.group.node} (${count(one.group.size)} galaxies). The others: ${one.group.classes.filter((other) => other !== one.id).map((other) => `class ${other}`).join(", ")}.`) : null,
    warned.length ? el("p", { class: "warning" }, warned.join("; ")) : null,
    one.beyond_reason ? el("p", { class: "small" }, `Beyond the answers: ${one.beyond_reason}.`) : null,
    one.populations.length ? el("p", { class: "small" }, `Mock truth: ${one.populations.map((row) => `${share(row.purity)} ${words(row.population)}`).join(", ")}.`) : null,
    galleries(one, choose),
    block("Predicted answers compared with the other galaxies", true, el("p", { class: "small" }, "Mean predicted vote fraction in the class and in the sample. Effect: rank-biserial correlation (−1 to 1) with the other galaxies. q: p-value corrected for all answers and classes."), answers(one)),
    block("Branch of the tree", true, branch),
    block("Sky", false, skyOf(one)),
    block("Catalogue compared with the other galaxies", false, el("p", { class: "small" }, "Every column that can be tested, the largest effects first. q: p-value corrected for all columns and classes (Benjamini & Hochberg)."), tests(one)),
    el("p", { class: "links" }, el("a", { href: `${file(id)}.html` }, "page of the class"), el("a", { href: `tables/${file(id)}.csv`, download: true }, "members, CSV"), el("a", { href: `tables/${file(id)}.fits`, download: true }, "FITS")));
}
