// Bundles src/ into the package: assets/atlas.js, with the hash of its sources in its first line, and the licences.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";

const target = "../src/rarezoo/report/assets/", here = new URL(".", import.meta.url).pathname;
process.chdir(here);
const hash = createHash("sha256");
for (const name of ["build.mjs", "package-lock.json", "package.json", ...readdirSync("src").sort().map((file) => `src/${file}`)]) hash.update(`${name}\n`).update(readFileSync(name));
const { metafile } = await build({
  entryPoints: ["src/main.js"], bundle: true, minify: true, format: "iife", target: "es2022", charset: "utf8", legalComments: "none", metafile: true,
  outfile: `${target}atlas.js`, banner: { js: `/* rarezoo's atlas, built from web/; sources sha256 ${hash.digest("hex")}; licences in atlas-licences.txt */` },
});
const bundled = Object.keys(metafile.inputs).flatMap((path) => path.match(/node_modules\/((?:@[^/]+\/)?[^/]+)\//)?.[1] ?? []);
// regl-scatterplot comes with the packages it needs already inside it, where esbuild cannot see them, and with a copy of kdbush.
const packages = new Set([...bundled, "kdbush"]);
for (const name of packages) for (const needed of Object.keys(manifest(name).dependencies ?? {})) packages.add(needed);
const texts = [...packages].sort().map((name) => {
  const folder = `node_modules/${name}/`, about = manifest(name), file = readdirSync(folder).find((name) => /^licen[cs]e/i.test(name));
  if (!file) throw new Error(`${name} brings no licence text`);
  return `${name} ${about.version} (${about.license})\n\n${readFileSync(folder + file, "utf8").trim()}\n`;
});
writeFileSync(`${target}atlas-licences.txt`, `Code of others in atlas.js:\n\n${texts.join(`\n${"-".repeat(80)}\n\n`)}`);

function manifest(name) {
  return JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
}
