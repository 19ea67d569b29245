// Bundles src/ into the package: the code of the offline pages (atlas.js, with the licences of what is in it) and that
// of the live page (rate.js). Each has the hash of all sources in its first line.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";

const report = "../src/rarezoo/report/assets/", live = "../src/rarezoo/explore/assets/", here = new URL(".", import.meta.url).pathname;
process.chdir(here);
const hash = createHash("sha256");
for (const name of ["build.mjs", "package-lock.json", "package.json", ...readdirSync("src").sort().map((file) => `src/${file}`)]) hash.update(`${name}\n`).update(readFileSync(name));
const digest = hash.digest("hex");
const inputs = await bundle("src/main.js", `${report}atlas.js`, "rarezoo's atlas", "licences in atlas-licences.txt");
if (packagesOf(await bundle("src/rate.js", `${live}rate.js`, "rarezoo's live page", "no code of others")).length) throw new Error("rate.js has code of others, whose licences must come with it");
// regl-scatterplot comes with the packages it needs already inside it, where esbuild cannot see them, and with a copy of kdbush.
const packages = new Set([...packagesOf(inputs), "kdbush"]);
for (const name of packages) for (const needed of Object.keys(manifest(name).dependencies ?? {})) packages.add(needed);
const texts = [...packages].sort().map((name) => {
  const folder = `node_modules/${name}/`, about = manifest(name), file = readdirSync(folder).find((name) => /^licen[cs]e/i.test(name));
  if (!file) throw new Error(`${name} brings no licence text`);
  return `${name} ${about.version} (${about.license})\n\n${readFileSync(folder + file, "utf8").trim()}\n`;
});
writeFileSync(`${report}atlas-licences.txt`, `Code of others in atlas.js:\n\n${texts.join(`\n${"-".repeat(80)}\n\n`)}`);

async function bundle(entry, outfile, what, licences) {
  const { metafile } = await build({
    entryPoints: [entry], bundle: true, minify: true, format: "iife", target: "es2022", charset: "utf8", legalComments: "none", metafile: true,
    outfile, banner: { js: `/* ${what}, built from web/; sources sha256 ${digest}; ${licences} */` },
  });
  return Object.keys(metafile.inputs);
}

function packagesOf(inputs) {
  return inputs.flatMap((path) => path.match(/node_modules\/((?:@[^/]+\/)?[^/]+)\//)?.[1] ?? []);
}

function manifest(name) {
  return JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
}
