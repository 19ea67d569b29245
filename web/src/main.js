// Starts the map of every page, and the atlas on atlas.html.
import { atlasPage } from "./atlas.js";
import { mapIn } from "./map.js";

function reportPage(box, map) {
  const fixed = box.dataset.class === undefined ? -1 : Number(box.dataset.class), atlas = mapIn(box, map, {}, fixed);
  document.querySelectorAll(".card").forEach((card) => {
    const id = Number(card.dataset.class);
    for (const name of ["pointerenter", "focusin"]) card.addEventListener(name, () => atlas.only([id]));
    for (const name of ["pointerleave", "focusout"]) card.addEventListener(name, () => atlas.only(null));
  });
  document.querySelectorAll("button.cutout").forEach((button) => button.addEventListener("click", () => {
    document.querySelectorAll(".cutout[aria-pressed]").forEach((other) => other.removeAttribute("aria-pressed"));
    button.setAttribute("aria-pressed", "true");
    const chosen = button.closest(".gallery").querySelector(".chosen");
    chosen.hidden = false; chosen.textContent = `${button.title} (marked with a ring on the map)`;
    atlas.ring(Number(button.dataset.row));
  }));
  return atlas;
}

const box = document.querySelector(".map");
if (box && window.rarezooMap) window.rarezooAtlas = document.body.classList.contains("atlas") ? atlasPage(window.rarezooMap) : reportPage(box, window.rarezooMap);
