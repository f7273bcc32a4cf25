// The page: a piece is asked for, followed, drawn, played and kept.
import * as api from "./api.js";
import * as link from "./link.js";
import { Form } from "./form.js";
import { Player } from "./player.js";
import { Sheet, decorate, prepare } from "./sheet.js";

const get = (id) => document.getElementById(id);
const OVER = ["stopped", "finished", "failed"];

let model, form, sheet, player;
/** The piece that is shown. */
let piece = null;
/** Pieces of this visit, the newest first. */
let visit = [];

const span = (seconds) => {
  const whole = Math.max(1, Math.round(seconds));
  return whole < 90 ? `${whole} s` : `${Math.round(whole / 60)} min`;
};
const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
const bars = (count) => `${count} ${count === 1 ? "bar" : "bars"}`;

function title({ prompt, music }) {
  const name = prompt.length === 3 ? `${prompt[1].split(",")[0]}, ${prompt[2]}` : prompt.join(", ");
  if (music) return name ? `${name}, continued` : "A score, continued";
  return name || "Free choice";
}

/** For all to see; read out when the piece takes a turn, and now and then while it grows. */
function say(text, turned, bad) {
  get("status").textContent = text;
  get("status").classList.toggle("bad", bad);
  if (!turned && performance.now() - (say.last ?? 0) < 20_000) return;
  say.last = performance.now();
  get("announcement").textContent = text;
}

function notice(text) {
  get("notice").textContent = text;
  get("notice").hidden = !text;
}

/** What the piece is doing, in words. */
function describe(piece) {
  const { status, bars: lines, ahead, seconds, reason } = piece;
  if (status === "queued") {
    const place = ahead === 0 ? "You are next" : `${ahead} ${ahead === 1 ? "piece is" : "pieces are"} before yours`;
    return `${place}${seconds == null ? "" : `; about ${span(seconds)} to wait`}.`;
  }
  if (status === "writing") {
    const retry = piece.attempt > 1 ? `Attempt ${piece.attempt}: the one before was no good (${piece.lastFailure}). ` : "";
    if (lines.length === 0) return `${retry}The first bar is being written…`;
    const left = piece.toCome ? ` of about ${lines.length + piece.toCome}` : "";
    return `${retry}Bar ${lines.length}${left}${seconds ? `; about ${span(seconds)} to go` : ""}.`;
  }
  if (status === "stopped") return `Stopped after ${bars(lines.length)}${reason && !reason.includes("visitor") ? ` (${reason})` : ""}. It can go on from here.`;
  if (status === "failed") return `Given up: ${reason}. Another seed may fare better.`;
  if (status === "lost") return `${reason}.`;
  return `${bars(lines.length)}, in ${span(piece.writtenFor)}${piece.outcome === "limit" ? "; cut at the length you set" : ""}.${sheet.failed ? " Not all of it could be engraved; the downloads have it." : ""}`;
}

/** Brings the page in line with the piece. */
function show() {
  if (!piece) return;
  const { status } = piece;
  const busy = status === "queued" || status === "writing";
  const stage = get("stage");
  const focused = document.activeElement;
  get("title").textContent = title(piece.settings);
  say(describe(piece), stage.dataset.status !== status, status === "failed" || status === "lost");
  get("stop").hidden = !busy;
  get("resume").hidden = status !== "stopped";
  // Who pressed a button that goes away finds the next one under the finger.
  if (focused?.hidden) (["stop", "resume"].map(get).find((button) => !button.hidden) ?? stage).focus();
  get("progress").hidden = !busy;
  if (piece.bars.length > 0 && piece.toCome) get("progress").value = piece.bars.length / (piece.bars.length + piece.toCome);
  else get("progress").removeAttribute("value");
  get("keep").hidden = piece.bars.length === 0 || busy;
  get("keep").querySelector('[data-form="svg"]').hidden = model.missing.length > 0;
  get("text-box").hidden = !piece.text;
  get("text-brief").textContent = `${piece.text.length.toLocaleString("en")} characters`;
  get("sheet").classList.add("fresh");
  get("sheet").hidden = model.missing.length > 0;
  get("no-sound").hidden = model.missing.length === 0;
  stage.dataset.status = status;
  get("sheet").dataset.bars = piece.bars.length;
  remember();
}

function draw(now = false) {
  const shown = piece;
  const follow = () => {
    const box = get("sheet");
    if (piece === shown && shown.status === "writing") box.scrollTop = box.scrollHeight;
  };
  if (now) sheet.draw(piece.header, piece.bars);
  else sheet.grow(piece.header, piece.bars, follow);
}

/** Shows another piece, or one anew. */
function turn(to) {
  player.set(null, { bars: [], seconds: 0 });
  piece = to;
  sheet.clear();
  get("text").textContent = piece.text;
  get("player").hidden = true;
  show();
  if (piece.bars.length > 0) draw(true);
  if (OVER.includes(piece.status)) sound(piece);
}

/** Makes a piece ready to be heard. */
async function sound(of) {
  if (of.bars.length === 0 || of.status === "failed" || model.missing.length > 0) return;
  try {
    const abc = abcOf(of);
    const [midi, times] = await Promise.all([
      api.convert(abc, "midi").then((answer) => answer.arrayBuffer()),
      api.convert(abc, "times").then((answer) => answer.json()),
    ]);
    if (piece !== of || !OVER.includes(of.status)) return;
    player.set(midi, times);
    get("player").hidden = times.seconds === 0;
  } catch (problem) {
    notice(problem.message);
  }
}

const abcOf = (piece) => `X:1\n${piece.header}${piece.bars.join("\n")}\n`;

function hear(of, name, data, id) {
  of.place = id;
  switch (name) {
    case "queued":
      Object.assign(of, { status: "queued", ...data });
      break;
    case "began":
      Object.assign(of, { status: "writing", attempt: data.attempt, lastFailure: data.reason, text: data.text, header: "", bars: [], toCome: null, seconds: null });
      if (of === piece) {
        sheet.clear();
        get("text").textContent = of.text;
      }
      break;
    case "text": {
      of.status = "writing";
      of.text += data.text;
      if (of !== piece) break;
      const box = get("text");
      const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 30;
      box.append(data.text);
      if (atEnd) box.scrollTop = box.scrollHeight;
      break;
    }
    case "music":
      of.header = data.header;
      of.bars.push(...data.bars);
      Object.assign(of, { toCome: data.to_come, seconds: data.seconds });
      if (of === piece) draw();
      break;
    case "closed":
      Object.assign(of, { status: "lost", reason: "The server was stopped" });
      break;
    default:
      Object.assign(of, { status: name, reason: data.reason, outcome: data.outcome, writtenFor: data.written_for });
      if (of !== piece) break;
      draw(true);
      sound(of);
      break;
  }
  if (of === piece) show();
  else remember();
}

function follow(of) {
  of.leave?.();
  of.leave = api.follow(of.id, of.place, (name, data, id) => hear(of, name, data, id), (problem) => {
    Object.assign(of, { status: "lost", reason: problem.message });
    if (of === piece) show();
  });
}

async function compose(wanted) {
  notice("");
  get("go").disabled = true;
  try {
    const { id, settings } = await api.compose(wanted);
    const fresh = { id, settings, status: "queued", ahead: 0, seconds: null, attempt: 0, text: "", header: "", bars: [] };
    // One piece at a time: the one before is left where it is, and can go on.
    if (piece && (piece.status === "queued" || piece.status === "writing")) api.stop(piece.id).catch(() => {});
    visit.unshift(fresh);
    turn(fresh);
    follow(fresh);
    history.replaceState(null, "", await link.write(settings, model.sha256));
    if (matchMedia("(max-width: 860px)").matches) get("stage").scrollIntoView();
  } catch (problem) {
    notice(problem.message);
  } finally {
    get("go").disabled = false;
  }
}

/** The list of this visit, kept until the browser's tab is closed. */
function remember() {
  get("history").hidden = visit.length === 0;
  get("history").querySelector("ol").replaceChildren(...visit.map((one) => {
    const button = document.createElement("button");
    const name = Object.assign(document.createElement("b"), { textContent: title(one.settings) });
    const done = { finished: "", queued: " · waits", writing: " · being written", stopped: " · stopped", failed: " · given up", lost: " · broken off" };
    const more = Object.assign(document.createElement("small"), { textContent: `seed ${one.settings.seed} · ${bars(one.bars.length)}${done[one.status]}` });
    button.type = "button";
    button.append(name, more);
    if (one === piece) button.setAttribute("aria-current", "true");
    button.addEventListener("click", async () => {
      turn(one);
      history.replaceState(null, "", await link.write(one.settings, model.sha256));
    });
    const item = document.createElement("li");
    item.append(button);
    return item;
  }));
  clearTimeout(remember.timer);
  remember.timer = setTimeout(() => {
    const kept = visit.slice(0, 30).map(({ leave, ...rest }) => rest);
    try {
      sessionStorage.setItem("visit", JSON.stringify({ server: model.sha256, kept }));
    } catch {
      // Full: the visit is remembered as long as the page is open.
    }
  }, 500);
}

/** The visit before a reload. Pieces that were being written are followed on. */
function recall() {
  try {
    const { server, kept } = JSON.parse(sessionStorage.getItem("visit") ?? "{}");
    if (server !== model.sha256) return;
    visit = kept;
  } catch {
    return;
  }
  for (const one of visit) if (one.status === "queued" || one.status === "writing") follow(one);
}

function save(bytes, name, type) {
  const url = URL.createObjectURL(new Blob([bytes], { type }));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

async function download(form) {
  const abc = abcOf(piece);
  const stem = `${title(piece.settings)} ${piece.settings.seed}`.replace(/[^A-Za-z0-9]+/g, "-").toLowerCase();
  try {
    if (form === "abc") return save(abc, `${stem}.abc`, "text/vnd.abc");
    if (form === "svg") return save(sheet.file(), `${stem}.svg`, "image/svg+xml");
    const answer = await api.convert(abc, form);
    save(await answer.arrayBuffer(), `${stem}.${form === "midi" ? "mid" : form}`, answer.headers.get("content-type"));
  } catch (problem) {
    notice(problem.message);
  }
}

async function share() {
  const url = await link.write(piece.settings, model.sha256);
  try {
    await navigator.clipboard.writeText(url);
    get("share").textContent = "Link copied";
  } catch {
    // No clipboard on pages that are not secure: it stands in the address line too.
    history.replaceState(null, "", url);
    get("share").textContent = "Link is in the address bar";
  }
  setTimeout(() => { get("share").textContent = "Copy link"; }, 2500);
}

function playback() {
  const button = get("play");
  button.dataset.playing = player.playing;
  button.setAttribute("aria-label", player.playing ? "Pause" : "Play");
  get("seek").max = player.seconds || 1;
  const shown = () => {
    const now = player.position;
    if (document.activeElement !== get("seek") || player.playing) get("seek").value = now;
    get("seek").setAttribute("aria-valuetext", `${clock(now)} of ${clock(player.seconds)}`);
    get("clock").textContent = `${clock(now)} / ${clock(player.seconds)}`;
    get("stage").dataset.position = now.toFixed(2);
  };
  shown();
  if (!player.playing) {
    if (player.at === 0) sheet.mark(null);
    return;
  }
  let bar = null;
  const step = () => {
    if (!player.playing) return;
    shown();
    if (player.bar !== bar && player.started) sheet.mark((bar = player.bar), true);
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}

const play = (from) => player.play(from).catch((error) => notice(`No sound: ${error.message}`));

function colours() {
  const order = ["", "light", "dark"];
  const names = { "": "as the system has them", light: "light", dark: "dark" };
  const set = (theme) => {
    document.documentElement.dataset.theme = theme;
    get("theme").setAttribute("aria-label", `Colours: ${names[theme]}`);
    get("theme").title = `Colours: ${names[theme]}`;
    localStorage.setItem("theme", theme);
  };
  set(localStorage.getItem("theme") ?? "");
  get("theme").addEventListener("click", () => set(order[(order.indexOf(document.documentElement.dataset.theme) + 1) % 3]));
}

/** A link asks for its piece; with other weights it would be another one. */
async function open() {
  const asked = await link.read(location.hash).catch(() => null);
  if (!asked) return;
  form.fill(asked.settings);
  if (model.sha256.startsWith(asked.weights)) {
    const known = visit.find((one) => !["failed", "lost"].includes(one.status) && same(one.settings, asked.settings));
    if (known) return turn(known);
    return compose({ ...form.wanted(), ...asked.settings });
  }
  notice(`This link is of other weights (${asked.weights}…) than those here (${model.sha256.slice(0, 16)}…): Compose would write another piece.`);
}

const same = (a, b) => ["seed", "top_k", "top_p", "temperature", "max_patches", "music"].every((name) => (a[name] ?? null) === (b[name] ?? null)) && a.prompt.join() === b.prompt.join();

async function main() {
  colours();
  model = await api.model();
  get("weights").textContent = `${model.weights} · ${(model.parameters / 1e6).toFixed(model.parameters < 1e7 ? 1 : 0)} M parameters · ${model.sha256.slice(0, 12)}`;
  if (model.missing.length > 0) {
    notice(model.missing.join(" "));
    get("no-sound").textContent = "Playback and the engraved score are not in this build.";
    get("text-box").open = true;
  } else {
    get("licences").innerHTML = '· <a href="licences.txt">Licences</a> of what engraves and plays';
    await prepare();
    decorate(get("empty"));
  }
  player = new Player(playback);
  sheet = new Sheet(get("paper"), (bar) => { if (!get("player").hidden) play(player.timeOf(bar)); });
  form = new Form(model);
  recall();
  remember();

  get("compose").addEventListener("submit", (event) => {
    event.preventDefault();
    compose(form.wanted());
  });
  get("stop").addEventListener("click", () => api.stop(piece.id).catch((problem) => notice(problem.message)));
  get("resume").addEventListener("click", async () => {
    const again = piece;
    player.pause();
    get("player").hidden = true;
    try {
      await api.resume(again.id);
      again.status = "queued";
      follow(again);
      show();
    } catch (problem) {
      notice(problem.message);
    }
  });
  get("play").addEventListener("click", () => (player.playing ? player.pause() : play()));
  get("seek").addEventListener("input", (event) => player.seek(Number(event.target.value)));
  get("keep").addEventListener("click", ({ target }) => target.dataset.form && download(target.dataset.form));
  get("share").addEventListener("click", share);
  addEventListener("hashchange", open);
  let width = get("paper").clientWidth;
  new ResizeObserver(() => {
    if (Math.abs(get("paper").clientWidth - width) < 40) return;
    width = get("paper").clientWidth;
    if (piece?.bars.length > 0) draw();
  }).observe(get("sheet"));
  await open();
  document.body.dataset.ready = "true";
}

main().catch((problem) => notice(problem.message));
