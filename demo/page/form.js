// The choices: what the visitor wants written.
import * as api from "./api.js";

const get = (id) => document.getElementById(id);

function radios(box, name, values, chosen) {
  box.replaceChildren(...values.map((value) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name, value, checked: value === chosen });
    const text = Object.assign(document.createElement("span"), { textContent: value });
    label.append(input, text);
    return label;
  }));
}

const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`)?.value;
const keep = (values, value) => (values.includes(value) ? value : values[0]);

export class Form {
  constructor(model) {
    this.model = model;
    this.periods = model.periods;
    this.music = null;
    get("choices").hidden = this.periods.length === 0;
    get("free").hidden = this.periods.length > 0;
    if (this.periods.length > 0) this.choose(...this.surprise());
    get("periods").addEventListener("change", () => this.link());
    get("composer").addEventListener("change", () => this.link());
    get("no-prompt").addEventListener("change", () => this.dim());

    const { top_k, top_p, temperature } = model.defaults;
    this.fill({ prompt: null, top_k, top_p, temperature });
    get("settings").addEventListener("input", () => this.brief());
    get("dice").addEventListener("click", () => {
      get("seed").value = Math.floor(Math.random() * 1e6);
      this.brief();
    });
    const limit = model.limits.patches;
    for (const option of get("max_patches").options) option.disabled = limit !== null && Number(option.value) > limit;

    const drop = get("drop");
    get("file").addEventListener("change", (event) => this.upload(event.target.files[0]));
    for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
    for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.remove("over"); });
    drop.addEventListener("drop", (event) => this.upload(event.dataTransfer.files[0]));
    get("remove").addEventListener("click", () => this.use(null));
  }

  surprise() {
    const any = (list) => list[Math.floor(Math.random() * list.length)];
    const period = any(this.periods);
    const composer = any(period.composers);
    return [period.name, composer.name, any(composer.instrumentations)];
  }

  /** Shows these three, and what goes with them. */
  choose(period, composer, instrumentation) {
    const names = this.periods.map(({ name }) => name);
    const inPeriod = this.periods.find(({ name }) => name === keep(names, period));
    radios(get("periods"), "period", names, inPeriod.name);
    const composers = inPeriod.composers.map(({ name }) => name);
    const one = inPeriod.composers.find(({ name }) => name === keep(composers, composer));
    get("composer").replaceChildren(...composers.map((name) => new Option(name, name, false, name === one.name)));
    radios(get("instrumentations"), "instrumentation", one.instrumentations, keep(one.instrumentations, instrumentation));
  }

  /** What can no longer be chosen gives way. */
  link() {
    const focused = document.activeElement?.name === "period";
    this.choose(chosen("period"), get("composer").value, chosen("instrumentation"));
    if (focused) document.querySelector('input[name="period"]:checked').focus();
  }

  dim() {
    const off = get("no-prompt").checked;
    for (const input of document.querySelectorAll("#periods input, #instrumentations input, #composer")) input.disabled = off;
  }

  prompt() {
    if (this.periods.length === 0) return get("lines").value.split("\n").map((line) => line.trim()).filter(Boolean);
    if (get("no-prompt").checked) return [];
    return [chosen("period"), get("composer").value, chosen("instrumentation")];
  }

  /** What is wanted, as the API takes it. */
  wanted() {
    const number = (id) => (get(id).value === "" ? null : Number(get(id).value));
    const wanted = { prompt: this.prompt(), top_k: number("top_k"), top_p: number("top_p"), temperature: number("temperature") };
    wanted.seed = number("seed") ?? Math.floor(Math.random() * 1e6);
    wanted.max_patches = number("max_patches");
    if (this.music) wanted.music = this.music.music;
    return wanted;
  }

  /** The settings of a piece or of a link. */
  fill({ prompt, music, ...numbers }) {
    for (const [name, value] of Object.entries(numbers)) {
      if (name === "max_patches" && value && ![...get(name).options].some((option) => option.value === String(value))) {
        get(name).append(new Option(`${value} patches`, value));
      }
      get(name).value = value ?? "";
    }
    if (prompt && this.periods.length === 0) get("lines").value = prompt.join("\n");
    if (prompt && this.periods.length > 0) {
      get("no-prompt").checked = prompt.length === 0;
      if (prompt.length === 3) this.choose(...prompt);
      this.dim();
    }
    if (music) this.use({ music, name: "the score of the link" });
    this.brief();
  }

  brief() {
    get("temperature-out").textContent = get("temperature").value;
    const seed = get("seed").value;
    get("settings-brief").textContent = `${seed ? `seed ${seed} · ` : ""}temperature ${get("temperature").value}`;
  }

  async upload(file) {
    const error = get("upload-error");
    error.hidden = true;
    if (!file) return;
    try {
      if (file.size > this.model.limits.body) throw new Error(`${file.name} is larger than ${Math.floor(this.model.limits.body / 1024)} KiB`);
      this.use({ ...(await api.upload(file)), name: file.name });
    } catch (problem) {
      this.use(null);
      error.textContent = `${file.name}: ${problem.message}`;
      error.hidden = false;
    }
  }

  use(music) {
    this.music = music;
    get("uploaded").hidden = !music;
    get("drop").hidden = Boolean(music);
    get("file").value = "";
    get("upload-error").hidden = true;
    if (!music) return;
    get("continuing").open = true;
    const size = music.bars ? `, ${music.bars} bars, ${music.voices} voices` : "";
    const odd = music.warnings?.length ? `; ${music.warnings.length} oddities, the first: ${music.warnings[0]}` : "";
    get("uploaded").firstElementChild.textContent = `${music.name}${size}${odd}`;
  }
}
