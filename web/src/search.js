// Finds a galaxy by its id or a coordinate, and a class by its number or name.
import { ids, sky } from "./galaxy.js";

// Largest distance between a coordinate and the galaxy that it finds, degrees.
const REACH = 1 / 60;

// Degrees, or hours and degrees with minutes and seconds: "185.7 15.8", "12h22m54.9s +15d49m20s", "12:22:54.9 +15:49:20".
export function coordinate(text) {
  const match = text.trim().match(/^([\d.:hms°d'"\s]+?)[\s,]+([+\-−]?[\d.:dms°'"\s]+)$/i);
  if (!match) return null;
  const parts = (text) => text.replace("−", "-").split(/[^\d.+-]+/).filter(Boolean).map(Number);
  let [ra, dec] = [parts(match[1]), parts(match[2])];
  const flat = text.trim().split(/[\s,]+/);
  if (flat.length === 6) { ra = flat.slice(0, 3).map(Number); dec = flat.slice(3).map((part) => Number(part.replace("−", "-"))); }
  if (![...ra, ...dec].every(Number.isFinite) || !ra.length || !dec.length || ra.length > 3 || dec.length > 3) return null;
  const sum = (numbers) => numbers.reduce((all, value, i) => all + Math.abs(value) / 60 ** i, 0);
  const south = /^\s*[-−]/.test(flat.length === 6 ? flat[3] : match[2]);
  const degrees = { ra: sum(ra) * (ra.length > 1 || /h/i.test(match[1]) ? 15 : 1), dec: sum(dec) * (south ? -1 : 1) };
  return degrees.ra <= 360 && Math.abs(degrees.dec) <= 90 ? degrees : null;
}

export function separation(ra, dec, ra0, dec0) {
  const d = Math.PI / 180, x = Math.sin((dec - dec0) * d / 2), y = Math.sin((ra - ra0) * d / 2);
  return 2 * Math.asin(Math.sqrt(x * x + Math.cos(dec * d) * Math.cos(dec0 * d) * y * y)) / d;
}

// Returns { row } of a galaxy, { id } of a class, or { problem }.
export async function search(text, map, decisions) {
  const wanted = text.trim(), named = map.classes.find((known) => `class ${known.id}` === wanted.toLowerCase() || (decisions.of(known.id).name && decisions.of(known.id).name.toLowerCase() === wanted.toLowerCase()));
  if (!wanted) return { problem: "Type an id, a coordinate, or “class 3”." };
  if (named) return { id: named.id };
  const all = await ids(), exact = all.indexOf(wanted);
  if (exact >= 0) return { row: exact };
  const place = coordinate(wanted);
  if (place && map.sky) {
    const { ra, dec } = await sky();
    let best = -1, closest = REACH;
    for (let i = 0; i < ra.length; i++) {
      if (!(Math.abs(dec[i] - place.dec) <= closest)) continue;
      const far = separation(ra[i], dec[i], place.ra, place.dec);
      if (far <= closest) { closest = far; best = i; }
    }
    return best >= 0 ? { row: best, message: `${(3600 * closest).toFixed(1)} arcsec from this position` } : { problem: "No galaxy of this search is within one arcminute." };
  }
  const starts = all.findIndex((id) => id.startsWith(wanted));
  if (starts >= 0) return { row: starts, message: `This is the first galaxy whose id begins with ${wanted}.` };
  return { problem: map.sky ? "There is no such id, coordinate or class." : "There is no such id or class. The search has no coordinates." };
}
