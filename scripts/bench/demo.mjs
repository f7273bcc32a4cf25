#!/usr/bin/env node
// Many visitors at once on a small network: is any starved, does the memory grow, is every stream complete?
//
//   scripts/bench/demo [VISITORS] [SECONDS]     20 visitors, 300 seconds; prints figures, ends with 1 if not all is well
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const root = new URL("../../", import.meta.url).pathname;
const [visitors, seconds] = [Number(process.argv[2] ?? 20), Number(process.argv[3] ?? 300)];

const server = spawn(`${root}target/release/notagen-train`, ["demo", "--weights", `${root}model/tests/golden/greedy.pth`, "--port", "0", "--json", "--device", "cpu"], { stdio: ["ignore", "pipe", "ignore"] });
const lines = {};
const url = await new Promise((resolve) => createInterface(server.stdout).on("line", (text) => {
  const line = JSON.parse(text);
  lines[line.event] = (lines[line.event] ?? 0) + 1;
  if (line.event === "listening") resolve(line.url);
}));
const memory = () => Number(readFileSync(`/proc/${server.pid}/status`, "utf8").match(/VmRSS:\s*(\d+)/)[1]) / 1024;

/** Reads the events of a piece to the end. */
async function follow(id) {
  const answer = await fetch(`${url}api/pieces/${id}/events`);
  const heard = { text: "", bars: 0, first: null, end: null };
  let rest = "";
  const began = performance.now();
  for await (const chunk of answer.body.pipeThrough(new TextDecoderStream())) {
    const events = (rest + chunk).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const name = event.match(/^event: (.*)$/m)?.[1];
      if (!name) continue;
      const data = JSON.parse(event.match(/^data: (.*)$/m)[1]);
      if (name === "began") [heard.text, heard.bars] = [data.text, 0];
      if (name === "text") heard.text += data.text;
      if (name === "music") heard.bars += data.bars.length;
      if (name === "text" || name === "began") heard.first ??= (performance.now() - began) / 1000;
      if (["finished", "failed", "stopped", "closed"].includes(name)) heard.end = name;
    }
  }
  return heard;
}

const end = performance.now() + seconds * 1000;
const pieces = [], wrong = [];
async function visit(visitor) {
  for (let turn = 0; performance.now() < end; turn++) {
    const wanted = { seed: visitor * 1000 + turn, top_k: 3, temperature: 0.7, max_patches: 300 + 200 * (visitor % 4) };
    const answer = await fetch(`${url}api/pieces`, { method: "POST", body: JSON.stringify(wanted), headers: { "Content-Type": "application/json" } });
    if (answer.status !== 201) { wrong.push(`${answer.status} ${await answer.text()}`); continue; }
    const { id } = await answer.json();
    const heard = await follow(id);
    const shown = await (await fetch(`${url}api/pieces/${id}`)).json();
    if (!["finished", "failed"].includes(heard.end) || shown.text !== heard.text || shown.bars !== heard.bars) {
      wrong.push(`piece ${id}: ${heard.end}, ${heard.text.length} of ${shown.text.length} characters, ${heard.bars} of ${shown.bars} bars`);
    }
    pieces.push({ visitor, ...heard, patches: shown.patches });
  }
}

const samples = [];
const watching = setInterval(() => samples.push(memory()), 2000);
await Promise.all(Array.from({ length: visitors }, (_, visitor) => visit(visitor)));
clearInterval(watching);

const sorted = (numbers) => [...numbers].sort((a, b) => a - b);
const at = (numbers, part) => Number((sorted(numbers)[Math.floor((numbers.length - 1) * part)] ?? NaN).toFixed(2));
const each = Array.from({ length: visitors }, (_, visitor) => pieces.filter((piece) => piece.visitor === visitor).length);
const waits = pieces.map(({ first }) => first ?? Infinity);
const part = (from, to) => samples.slice(Math.floor(samples.length * from), Math.floor(samples.length * to));
const mean = (numbers) => Math.round(numbers.reduce((sum, one) => sum + one, 0) / numbers.length);
const figures = {
  visitors, seconds, pieces: pieces.length, failed: pieces.filter((piece) => piece.end === "failed").length,
  patches_per_second: Math.round(pieces.reduce((sum, { patches }) => sum + patches, 0) / seconds),
  pieces_of_a_visitor: { least: Math.min(...each), most: Math.max(...each) },
  seconds_to_the_first_text: { median: at(waits, 0.5), "95 of 100": at(waits, 0.95), longest: at(waits, 1) },
  memory_mib: { second_fifth: mean(part(0.2, 0.4)), last_fifth: mean(part(0.8, 1)), most: Math.round(Math.max(...samples)) },
  incomplete: wrong.length, events: lines,
};
console.log(JSON.stringify(figures, null, 2));
for (const one of wrong.slice(0, 10)) console.error(one);
server.kill("SIGTERM");
const code = await new Promise((resolve) => server.on("exit", resolve));
const grown = figures.memory_mib.last_fifth / figures.memory_mib.second_fifth;
process.exitCode = wrong.length === 0 && Math.min(...each) > 0 && grown < 1.1 && code === 0 ? 0 : 1;
