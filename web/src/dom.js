// Makes elements without HTML text, so that ids and names may contain any character.
export function el(tag, attributes = {}, ...children) {
  const element = tag === "svg" || tag === "g" || tag === "rect" || tag === "path" || tag === "text" || tag === "title"
    ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const number = (value) => (value === null || value === undefined ? "not measured" : Number.isFinite(value) ? Number(value.toPrecision(3)).toString() : "∞");
export const count = (value) => value.toLocaleString("en");
export const share = (value) => (value > 0 && value < 0.001 ? "< 0.1 %" : `${(100 * value).toFixed(value < 0.0995 ? 1 : 0)} %`);
export const words = (name) => name.replaceAll("-", " ").replaceAll("_", " ");
// The grade of a class in words.
export const badge = (grade) => el("span", { class: `grade${{ "significant and stable": " stable", candidate: " candidate" }[grade] || ""}` }, grade);
export const file = (id) => `class-${String(id).padStart(3, "0")}`;

export function download(name, text, kind) {
  const link = el("a", { href: URL.createObjectURL(new Blob([text], { type: kind })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const cell = (value) => (/[",\n\r]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
export const csv = (rows) => rows.map((row) => row.map(cell).join(",")).join("\n") + "\n";
