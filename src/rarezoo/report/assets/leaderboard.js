// A click on a heading sorts the table: numbers by size, the rest by name; rows without a value come last.
"use strict";
(() => {
  const value = (row, at) => {
    const merged = row.querySelector("[colspan]"), wide = merged ? merged.colSpan - 1 : 0;
    if (merged && at >= merged.cellIndex && at <= merged.cellIndex + wide) return "";
    const cell = row.cells[merged && at > merged.cellIndex ? at - wide : at];
    return cell.dataset.value ?? cell.textContent.trim();
  };
  const compare = (a, b) => {
    if (a === "" || b === "") return a === b ? 0 : a === "" ? Infinity : -Infinity;
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
  };
  document.querySelectorAll(".board").forEach((table) => {
    const body = table.tBodies[0], heads = [...table.rows[0].cells];
    heads.forEach((head, at) => head.querySelector("button")?.addEventListener("click", () => {
      const number = head.classList.contains("n"), before = head.getAttribute("aria-sort");
      const down = before ? before === "ascending" : number;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const order = (a, b) => { const by = compare(value(a, at), value(b, at)); return down && Number.isFinite(by) ? -by : by; };
      body.append(...[...body.rows].sort((a, b) => Math.max(-1, Math.min(1, order(a, b)))));
    }));
  });
})();
