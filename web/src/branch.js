// A class's branch of the condensed tree: every bar is a group of galaxies, from the density at which it splits off
// (left) to that at which it dissolves or splits (right).
import { count, el } from "./dom.js";

const ROW = 20, GAP = 3, WIDE = 420, MOST = 40;

export function branches(tree, root, act) {
  const children = new Map(), at = new Map(tree.node.map((node, i) => [node, i]));
  tree.node.forEach((node, i) => children.set(tree.parent[i], [...(children.get(tree.parent[i]) || []), node]));
  const classOf = (node) => tree.class[at.get(node)];
  const below = (node) => [classOf(node), ...(children.get(node) || []).flatMap(below)].filter((id, k) => (k === 0 ? id >= 0 : true));
  const leaves = (node) => ((children.get(node) || []).length ? children.get(node).reduce((sum, child) => sum + leaves(child), 0) : 1);
  const parent = (node) => tree.parent[at.get(node)];
  let top = root, current = root;

  // Goes up the tree until the class is shown with its closest relatives, but not further than can be read.
  function start(node) {
    let ancestor = node;
    while (at.has(parent(ancestor)) && leaves(parent(ancestor)) <= 12) ancestor = parent(ancestor);
    return ancestor === node && at.has(parent(node)) && leaves(parent(node)) <= MOST ? parent(node) : ancestor;
  }
  const lines = (node, depth = 0) => [[node, depth], ...(children.get(node) || []).flatMap((child) => lines(child, depth + 1))];

  function bar([node, depth], row, scale) {
    const i = at.get(node), own = classOf(node), ids = below(node), x = scale(tree.birth[i]), wide = Math.max(scale(tree.death[i]) - x, 3);
    const text = `${own >= 0 ? `class ${act.name(own)}, ` : ""}${count(tree.size[i])} galaxies${own < 0 && ids.length ? `, classes ${ids.join(", ")}` : ""}`;
    const open = () => (own >= 0 ? act.open(own) : act.mark(ids));
    const mark = own >= 0 ? act.colour(own) : "var(--point)";
    return el("g", {
      role: "button", tabindex: 0, "aria-label": text, "data-node": node, class: node === current ? "bar own" : "bar",
      onclick: open, onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(); } },
    },
    el("title", {}, text), el("rect", { x: 0, y: row * ROW, width: WIDE, height: ROW, fill: "transparent" }),
    el("rect", { x, y: row * ROW + GAP, width: wide, height: ROW - 2 * GAP, rx: 2, fill: mark }),
    el("text", { x: Math.min(x + wide + 5, WIDE - 90), y: row * ROW + ROW / 2 + 4 }, `${"· ".repeat(Math.min(depth, 6))}${own >= 0 ? `${act.name(own)} (${count(tree.size[i])})` : count(tree.size[i])}`));
  }

  return function draw(box, node) {
    if (node !== current || !box.hasChildNodes()) { current = node; top = start(node); }
    const all = lines(top), shown = all.slice(0, MOST), places = shown.map(([node]) => at.get(node));
    const densities = places.flatMap((i) => [tree.birth[i], tree.death[i]]).filter((density) => density > 0 && Number.isFinite(density));
    const low = Math.log(Math.min(...densities)), high = Math.log(Math.max(...densities, Math.min(...densities) * 1.01));
    const scale = (density) => (WIDE - 110) * Math.max(0, Math.min(1, (Math.log(Math.max(density, 1e-12)) - low) / Math.max(high - low, 1e-9)));
    const up = at.has(parent(top)), ids = below(top);
    box.replaceChildren(
      el("svg", { viewBox: `0 0 ${WIDE} ${shown.length * ROW}`, role: "group", "aria-label": "Branch of the condensed tree" }, shown.map((line, row) => bar(line, row, scale))),
      el("p", { class: "small" }, all.length > MOST ? `The first ${MOST} of ${all.length} groups. ` : "", "Density increases to the right on a logarithmic scale. A bar without a class is a larger group that splits into the groups below it."),
      el("p", { class: "buttons" },
        el("button", { type: "button", disabled: !up, onclick: () => { top = parent(top); draw(box, current); } }, "larger branch"),
        el("button", { type: "button", disabled: top === current, onclick: () => { top = start(current); draw(box, current); } }, "back to the class"),
        el("button", { type: "button", disabled: ids.length < 2, onclick: () => act.mark(ids) }, `mark the ${ids.length} classes`)),
    );
  };
}
