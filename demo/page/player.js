// Playback: a worker renders the piece's MIDI a stretch at a time, and the stretches are queued one behind the other.

/** Seconds that are rendered at a time, and ahead. */
const STRETCH = 0.5, AHEAD = 2;

export class Player {
  constructor(onChange) {
    this.onChange = onChange;
    this.calls = new Map();
    this.at = 0;
    this.run = 0;
    this.playing = false;
    this.times = { bars: [], seconds: 0 };
  }

  call(task, rest = {}, transfer = []) {
    const id = this.calls.size + Math.random();
    return new Promise((resolve, reject) => {
      this.calls.set(id, { resolve, reject });
      this.worker.postMessage({ task, id, ...rest }, transfer);
    });
  }

  /** Sound has to begin with a press of a button, so browsers say. */
  async begin() {
    if (this.context) return this.context.resume();
    const context = new AudioContext();
    this.worker = new Worker("synth.js", { type: "module" });
    this.worker.onmessage = ({ data: { id, result, error } }) => {
      const call = this.calls.get(id);
      this.calls.delete(id);
      if (error) call?.reject(new Error(error));
      else call?.resolve(result);
    };
    await this.call("load", { url: "sounds.sf3", rate: context.sampleRate });
    this.context = context;
    this.gain = context.createGain();
    this.gain.connect(context.destination);
    await context.resume();
  }

  /** Another piece: its MIDI, and when its bars are played. */
  set(midi, times) {
    this.pause();
    Object.assign(this, { midi, times, at: 0, opened: false });
    this.onChange();
  }

  get seconds() {
    return this.times.seconds;
  }

  /** Where it is. */
  get position() {
    if (!this.playing || !this.started) return this.at;
    return Math.min(this.seconds, this.at + Math.max(0, this.context.currentTime - this.started));
  }

  /** The bar that sounds. */
  get bar() {
    const now = this.position;
    let found = 0;
    for (const { bar, seconds } of this.times.bars) {
      if (seconds > now + 0.01) break;
      found = bar;
    }
    return found;
  }

  async play(from = this.at) {
    const run = ++this.run;
    this.silence();
    this.at = from >= this.seconds - 0.05 ? 0 : from;
    this.playing = true;
    this.started = 0;
    this.onChange();
    try {
      await this.begin();
      if (run !== this.run) return;
      if (!this.opened) {
        const midi = this.midi.slice(0);
        await this.call("open", { midi }, [midi]);
        this.opened = true;
      }
      await this.call("seek", { seconds: this.at });
      await this.fill(run);
    } catch (error) {
      if (run === this.run) this.pause();
      throw error;
    }
  }

  /** Keeps the queue filled until the end. */
  async fill(run) {
    const rate = this.context.sampleRate;
    let next = 0;
    for (let done = this.at; run === this.run && done < this.seconds + 1.5; done += STRETCH) {
      const channels = await this.call("render", { samples: Math.round(STRETCH * rate) });
      if (run !== this.run) return;
      const buffer = this.context.createBuffer(2, channels[0].length, rate);
      channels.forEach((samples, channel) => buffer.copyToChannel(samples, channel));
      const source = this.context.createBufferSource();
      source.buffer = buffer;
      source.connect(this.gain);
      if (!this.started) this.started = next = this.context.currentTime + 0.1;
      // Late: the clock waits for the sound.
      const late = this.context.currentTime + 0.02 - next;
      if (late > 0) {
        this.started += late;
        next += late;
      }
      source.start(next);
      this.sources.push(source);
      source.onended = () => { this.sources = this.sources.filter((other) => other !== source); };
      next += STRETCH;
      while (run === this.run && next - this.context.currentTime > AHEAD) await new Promise((wake) => setTimeout(wake, 100));
    }
    while (run === this.run && this.position < this.seconds) await new Promise((wake) => setTimeout(wake, 50));
    if (run === this.run) {
      this.pause();
      this.at = 0;
      this.onChange();
    }
  }

  sources = [];

  silence() {
    for (const source of this.sources) source.stop();
    this.sources = [];
  }

  pause() {
    this.at = this.position;
    this.run++;
    this.playing = false;
    this.silence();
    this.onChange();
  }

  async seek(seconds) {
    if (this.playing) return this.play(seconds);
    this.at = seconds;
    this.onChange();
  }

  /** The first time that a bar sounds. */
  timeOf(bar) {
    return this.times.bars.find((played) => played.bar === bar)?.seconds ?? 0;
  }
}
