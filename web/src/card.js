// The card of a class: numbers, galleries, answers, catalogue, sky.
import { data } from "./columns.js";
import { badge, count, el, file, number, share, words } from "./dom.js";

const SKY = { wide: 360, high: 180 };
const shownQ = (q) => (q === null ? "–" : q < 1e-20 ? "< 1e-20" : q < 0.001 ? q.toExponential(0) : q.toFixed(3));

const measuredShare = (value) => (value === null ? "not measured" : share(value));

function facts(details) {
  const rows = [
    ["galaxies", count(details.size)], ["share", share(details.share)], ["persistence", number(details.persistence)], ["significance", number(details.significance)],
    ["chance in noise", measuredShare(details.p_value)], ["false discovery", measuredShare(details.false_discovery)],
    ["stability", details.stability === null ? "not measured" : details.stability.toFixed(2)], ["beyond the answers", measuredShare(details.beyond)], ["telescope", details.cause || "not tested"],
  ];
  return el("dl", { class: "facts" }, rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

// Galaxies as buttons, each with its image or, without images, its id.
export function sheet(galaxies, choose, image = null) {
  return el("ul", { class: "sheet", style: image ? { backgroundImage: `url(${image.path})` } : {} }, galaxies.map((galaxy) => el("li", {},
    el("button", {
      type: "button", class: `cutout${image || galaxy.style ? "" : " bare"}`, "data-row": galaxy.row, title: galaxy.membership ? `${galaxy.id} · ${galaxy.membership}` : galaxy.id,
      "aria-label": `Galaxy ${galaxy.id}${galaxy.membership ? `, ${galaxy.membership}` : ""}`, onclick: () => choose(galaxy.row),
      style: image ? { backgroundPosition: `${galaxy.across}% ${galaxy.down}%`, backgroundSize: `${100 * image.wide}% ${100 * image.high}%` } : galaxy.style || {},
    }, image || galaxy.style ? "" : galaxy.id))));
}

function galleries(details, choose) {
  return details.galleries.map((gallery, place) => el("details", { open: place < 2, class: "block" }, el("summary", {}, gallery.title), el("p", { class: "small" }, gallery.about),
    gallery.galaxies.length ? sheet(gallery.galaxies, choose, gallery.image ? { path: gallery.image, wide: gallery.wide, high: gallery.high } : null) : el("p", {}, "None.")));
}

function answers(details) {
  if (!details.answers.length) return el("p", { class: "small" }, "The embedding store has no predicted answers.");
  return el("table", {}, el("thead", {}, el("tr", {}, ["answer", "class", "sample", "effect", "q"].map((name, i) => el("th", { scope: "col", class: i ? "n" : null }, name)))),
    el("tbody", {}, details.answers.map((row) => el("tr", {}, el("th", { scope: "row" }, words(row.name)),
      [row.inside.toFixed(2), row.sample.toFixed(2), (row.effect > 0 ? "+" : "") + row.effect.toFixed(2), shownQ(row.q)].map((value) => el("td", { class: "n" }, value))))));
}

function tests(details) {
  if (!details.tests.length) return el("p", { class: "small" }, "No catalogue column could be tested.");
  return el("table", {}, el("thead", {}, el("tr", {}, ["column", "difference", "effect", "q"].map((name, i) => el("th", { scope: "col", class: i > 1 ? "n" : null }, name)))),
    el("tbody", {}, details.tests.map((row) => el("tr", { class: row.raised ? "raised" : null }, el("th", { scope: "row" }, row.column), el("td", {}, row.words), el("td", { class: "n" }, row.effect.toFixed(2)), el("td", { class: "n" }, shownQ(row.q))))));
}

// Grey cells: galaxies searched. Dots: members. Equal angles, east to the left.
async function drawSky(canvas, details, cells) {
  const { wide, high, counts } = await cells(), pen = canvas.getContext("2d"), style = getComputedStyle(canvas), most = Math.log1p(Math.max(...counts));
  canvas.width = 2 * SKY.wide; canvas.height = 2 * SKY.high;
  pen.scale(2, 2);
  pen.fillStyle = style.getPropertyValue("--page"); pen.fillRect(0, 0, SKY.wide, SKY.high);
  pen.fillStyle = style.getPropertyValue("--point");
  counts.forEach((galaxies, i) => {
    if (!galaxies) return;
    pen.globalAlpha = 0.15 + 0.5 * Math.log1p(galaxies) / most;
    pen.fillRect(SKY.wide - (i % wide + 1) * SKY.wide / wide, SKY.high - (Math.floor(i / wide) + 1) * SKY.high / high, SKY.wide / wide, SKY.high / high);
  });
  pen.globalAlpha = 0.85; pen.fillStyle = style.getPropertyValue("--accent");
  details.sky.ra.forEach((ra, i) => { pen.beginPath(); pen.arc(SKY.wide - ra, SKY.high / 2 - details.sky.dec[i], 1.8, 0, 7); pen.fill(); });
}

function skyOf(details, cells) {
  if (!details.sky || !details.sky.ra.length) return el("p", { class: "small" }, "The positions of its members on the sky are unknown.");
  const { ra, dec } = details.sky, text = `${count(ra.length)} members between declinations ${Math.min(...dec).toFixed(1)}° and ${Math.max(...dec).toFixed(1)}°`;
  const canvas = el("canvas", { class: "sky", role: "img", "aria-label": `Sky: ${text}` });
  requestAnimationFrame(() => drawSky(canvas, details, cells));
  return [canvas, el("p", { class: "small" }, `${text}. Grey: all galaxies searched. Right ascension runs from 0° on the right to 360° on the left.`)];
}

const block = (title, open, ...inner) => el("details", { class: "block", open }, el("summary", {}, title), ...inner);

// Returns the element of the card; a click on a galaxy calls choose(row). meanings: what each grade means.
export async function card(id, choose, branch, meanings) {
  const details = await data(`card-${String(id).padStart(3, "0")}`);
  const links = el("p", { class: "links" }, el("a", { href: `${file(id)}.html` }, "page of the class"), el("a", { href: `tables/${file(id)}.csv`, download: true }, "members, CSV"), el("a", { href: `tables/${file(id)}.fits`, download: true }, "FITS"));
  return cardOf(details, { choose, branch: block("Branch of the tree", true, branch), meaning: meanings[details.grade], cells: () => data("sky"), links });
}

// The same from the details of a class. branch, links: elements or null; cells(): the numbers of all galaxies on the sky.
export function cardOf(details, { choose, branch, meaning, cells, links }) {
  const warned = [...details.warnings.map(words), ...(details.cause && details.cause !== "clean" ? [`${details.cause}: ${details.cause_reason}`] : [])];
  return el("div", {},
    details.grade ? el("p", { class: "small graded-as" }, badge(details.grade), ` ${meaning}`) : null,
    facts(details),
    details.group ? el("p", { class: "small" }, `One of ${details.group.classes.length} classes in group ${details.group.node} (${count(details.group.size)} galaxies). The others: ${details.group.classes.filter((other) => other !== details.id).map((other) => `class ${other}`).join(", ")}.`) : null,
    warned.length ? el("p", { class: "warning" }, warned.join("; ")) : null,
    details.beyond_reason ? el("p", { class: "small" }, `Beyond the answers: ${details.beyond_reason}.`) : null,
    details.populations.length ? el("p", { class: "small" }, `Mock truth: ${details.populations.map((row) => `${share(row.purity)} ${words(row.population)}`).join(", ")}.`) : null,
    galleries(details, choose),
    block("Predicted answers compared with the other galaxies", true, el("p", { class: "small" }, "Mean predicted vote fraction in the class and in the sample. Effect: rank-biserial correlation (−1 to 1) with the other galaxies. q: p-value corrected for all answers and classes."), answers(details)),
    branch,
    block("Sky", false, skyOf(details, cells)),
    block("Catalogue compared with the other galaxies", false, el("p", { class: "small" }, "Every column that can be tested, the largest effects first. q: p-value corrected for all columns and classes (Benjamini & Hochberg)."), tests(details)),
    links);
}
