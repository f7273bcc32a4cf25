// The engraved score: ABC laid out in systems, drawn by abcjs, with its bars found again in the drawing.

let engraver = null;

/** Loads the engraver, if this build has one. */
export async function prepare() {
  engraver = await import("./engraver.js");
}

const NOTES = /(?:\[[^\]:]*\]|[A-Ga-gxz])[,']*/g;

/** The voices of a line of interleaved ABC. */
function voices(bar) {
  const parts = bar.split(/\[V:(\d+)\]/);
  const found = [];
  for (let i = 1; i < parts.length; i += 2) found.push([parts[i], parts[i + 1]]);
  return found;
}

/** How much room a bar takes, roughly: its busiest voice. */
const room = (bar) => Math.max(...bar.map(([, music]) => 2 + (music.replace(/"[^"]*"|![^!]*!|\[[A-Z]:[^\]]*\]|\{[^}]*\}/g, "").match(NOTES)?.length ?? 0)), 3);

/** Bars in systems that are about equally full. */
function systems(bars, width) {
  const most = width / 27;
  const result = [];
  let used = Infinity;
  bars.forEach((bar, number) => {
    const needed = room(bar);
    if (used + needed > most) {
      result.push([]);
      used = 0;
    }
    result.at(-1).push(number);
    used += needed;
  });
  return result;
}

/** ABC for the engraver, and where in it each bar is: [start, end, bar] in the order of the text. */
export function layout(header, lines, width) {
  const bars = lines.map(voices);
  const wanted = header.split("\n").filter((line) => line && !/^(%[^%]|X:)/.test(line));
  let abc = `X:1\n${wanted.join("\n")}\n`;
  const places = [];
  for (const system of systems(bars, width)) {
    const order = [...new Set(system.flatMap((number) => bars[number].map(([voice]) => voice)))];
    for (const voice of order) {
      abc += `[V:${voice}]`;
      for (const number of system) {
        const music = bars[number].find(([name]) => name === voice)?.[1] ?? "x|";
        // A second voice of a staff that begins its line with a key or clef is more than the engraver can take.
        if (number === system[0] && /^\s*\[K:/.test(music)) abc += "y";
        const start = abc.length;
        abc += music;
        places.push([start, abc.length, number]);
      }
      abc += "\n";
    }
  }
  return { abc, places };
}

/** Where a bar is drawn: the box around all that belongs to it. */
function boxes(tune, places, svg) {
  const found = new Map();
  let last = 0;
  const barAt = (char) => {
    // Neighbouring elements are mostly in the same bar.
    const is = ([start, end]) => start <= char && char < end;
    if (!places[last] || !is(places[last])) last = places.findIndex(is);
    return last < 0 ? undefined : places[last][2];
  };
  tune.lines.forEach((line, system) => {
    for (const staff of line.staff ?? []) {
      for (const voice of staff.voices) {
        for (const element of voice) {
          const bar = barAt(element.startChar);
          if (bar === undefined || !element.abselem) continue;
          const entry = found.get(bar) ?? { system, left: Infinity, right: -Infinity, elements: [] };
          const { x, w } = element.abselem;
          entry.left = Math.min(entry.left, x);
          entry.right = Math.max(entry.right, x + w);
          entry.elements.push(...(element.abselem.elemset ?? []));
          found.set(bar, entry);
        }
      }
    }
  });
  const wrappers = [...svg.querySelectorAll(".abcjs-staff-wrapper")].map((wrapper) => wrapper.getBBox());
  let before = null;
  for (const entry of found.values()) {
    const system = wrappers[entry.system];
    if (!system) continue;
    entry.top = system.y;
    entry.height = system.height;
    if (before?.system === entry.system) entry.left = before.right;
    before = entry;
  }
  return found;
}

/** A few bars in an empty place, for looks. */
export function decorate(place) {
  engraver.renderAbc(place, "X:1\nL:1/8\nM:4/4\nK:D\nF2 F2 G2 A2|A2 G2 F2 E2|D2 D2 E2 F2|F3 E E4|]\n", { staffwidth: 560, responsive: "resize", selectTypes: false });
}

/** Draws a score into `paper`. */
export class Sheet {
  constructor(paper, onBar) {
    this.paper = paper;
    this.onBar = onBar;
    this.bars = new Map();
    this.drawn = 0;
    this.failed = false;
  }

  clear() {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.paper.replaceChildren();
    this.bars.clear();
    this.drawn = 0;
  }

  /** Draws soon: not more than a third of the time is spent on drawing. */
  grow(header, lines, after) {
    this.next = { header, lines: [...lines], after };
    if (this.timer !== undefined) return;
    this.timer = setTimeout(() => {
      this.timer = undefined;
      const { header, lines, after } = this.next;
      this.draw(header, lines);
      after?.();
    }, this.pause ?? 0);
  }

  draw(header, lines) {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (!engraver || lines.length === 0) return;
    const began = performance.now();
    // Fewer and larger bars on a narrow page.
    const width = Math.max(500, Math.min(1400, this.paper.clientWidth * 1.4));
    const { abc, places } = layout(header, lines, width);
    // Drawn beside the page and put in at once: nothing flickers.
    const fresh = document.createElement("div");
    fresh.style.cssText = "position:absolute;visibility:hidden;inset:0 auto auto 0";
    fresh.style.width = `${this.paper.clientWidth}px`;
    document.body.append(fresh);
    let svg;
    try {
      const [tune] = engraver.renderAbc(fresh, abc, {
        staffwidth: width, add_classes: true, responsive: "resize", paddingtop: 14, paddingbottom: 14, paddingleft: 10, paddingright: 14, stretchlast: 0.55,
      });
      svg = fresh.querySelector("svg");
      this.bars = boxes(tune, places, svg);
      this.failed = false;
    } catch (error) {
      // Networks write what no engraver has thought of. What was drawn before stays.
      console.warn("the engraver failed", error);
      this.failed = true;
      fresh.remove();
      return;
    }
    this.width = width;
    // The engraver lays it over its folder; here it takes its own room.
    svg.style.position = "static";
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `Score of ${lines.length} bars`);
    this.paper.replaceChildren(svg);
    fresh.remove();
    for (const [bar, { elements }] of this.bars) {
      for (const element of elements) element.setAttribute?.("data-bar", bar);
    }
    svg.addEventListener("click", (event) => {
      const bar = event.target.closest?.("[data-bar]")?.getAttribute("data-bar");
      if (bar != null) this.onBar(Number(bar));
    });
    this.drawn = lines.length;
    this.svg = svg;
    this.pause = Math.min(4000, (performance.now() - began) * 2);
  }

  /** Shows a bar as the one that sounds; none without one. */
  mark(bar, follow) {
    this.svg?.querySelector(".playing")?.remove();
    const box = this.bars.get(bar);
    if (!box || box.height === undefined) return;
    const mark = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [name, value] of Object.entries({ class: "playing", x: box.left, y: box.top, width: Math.max(8, box.right - box.left), height: box.height, rx: 6 })) {
      mark.setAttribute(name, value);
    }
    this.svg.prepend(mark);
    if (follow) mark.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  /** The drawing as a file: on white, whatever the page's colours are. */
  file() {
    if (!this.svg) return null;
    const copy = this.svg.cloneNode(true);
    copy.querySelector(".playing")?.remove();
    copy.removeAttribute("style");
    copy.style.cssText = "color:#000;background:#fff";
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    return new XMLSerializer().serializeToString(copy);
  }
}
