// Images of single galaxies, cut from sheets. A sheet is loaded when one of its galaxies is needed for the first time.
import { data, int32 } from "./columns.js";

export function thumbnails(map, changed) {
  const about = map.thumbnails, sheets = new Map();
  let slots = null;
  if (about) data("slots", int32).then((numbers) => { slots = numbers; changed(); });
  function sheet(number) {
    if (!sheets.has(number)) {
      const image = new Image();
      image.onload = changed;
      image.src = `images/sheet-${String(number).padStart(4, "0")}.jpg`;
      sheets.set(number, image);
    }
    return sheets.get(number);
  }
  const place = (row) => {
    const slot = slots[row], within = slot % (about.side * about.side);
    return { number: Math.floor(slot / (about.side * about.side)), x: within % about.side, y: Math.floor(within / about.side) };
  };
  return {
    ready: () => !about || slots !== null,
    has: (row) => slots !== null && slots[row] >= 0,
    // Draws onto a canvas; returns false while the sheet is loading.
    draw(pen, row, x, y, size) {
      const at = place(row), image = sheet(at.number);
      if (!image.complete || !image.naturalWidth) return false;
      pen.drawImage(image, at.x * about.pixels, at.y * about.pixels, about.pixels, about.pixels, x, y, size, size);
      return true;
    },
    // Returns the style of an element that has the image as its background.
    style(row) {
      const at = place(row), last = about.side - 1;
      return {
        backgroundImage: `url(${sheet(at.number).src})`, backgroundSize: `${100 * about.side}% ${100 * about.side}%`,
        backgroundPosition: `${100 * at.x / last}% ${100 * at.y / last}%`,
      };
    },
  };
}
