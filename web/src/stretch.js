// Image scaling: brightness curve, contrast and size of all cutouts, as a browser filter.
const CURVES = { linear: (v) => v, sqrt: Math.sqrt, asinh: (v) => Math.asinh(10 * v) / Math.asinh(10), log: (v) => Math.log1p(1000 * v) / Math.log(1001) };

export function stretching() {
  const get = (name) => document.getElementById(name);
  const change = () => {
    const gain = Number(get("gain").value), table = Array.from({ length: 65 }, (_, i) => {
      const value = CURVES[get("curve").value](Math.min(1, gain * i / 64));
      return (get("invert").checked ? 1 - value : value).toFixed(4);
    }).join(" ");
    document.querySelectorAll("#stretch feFuncR, #stretch feFuncG, #stretch feFuncB").forEach((channel) => channel.setAttribute("tableValues", table));
    document.body.classList.toggle("stretched", get("curve").value !== "linear" || gain !== 1 || get("invert").checked);
    document.documentElement.style.setProperty("--thumbnail", `${get("size").value}px`);
  };
  for (const name of ["curve", "gain", "size", "invert"]) get(name).addEventListener("input", change);
  change();
}
