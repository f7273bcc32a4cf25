// A worker that plays: MIDI in, samples out, a stretch at a time.
import { BasicMIDI, SoundBankLoader, SpessaSynthProcessor, SpessaSynthSequencer } from "spessasynth_core";

const BLOCK = 128;
let bank, synth, sequencer;

const tasks = {
  async load({ url, rate }) {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
    bank ??= SoundBankLoader.fromArrayBuffer(await answer.arrayBuffer());
    synth = new SpessaSynthProcessor(rate, { eventsEnabled: false });
    await synth.processorInitialized;
    synth.soundBankManager.addSoundBank(bank, "main");
  },
  open({ midi }) {
    sequencer = new SpessaSynthSequencer(synth);
    sequencer.loopCount = 0;
    sequencer.skipToFirstNoteOn = false;
    sequencer.loadNewSongList([BasicMIDI.fromArrayBuffer(midi, "piece.mid")]);
  },
  seek({ seconds }) {
    sequencer.currentTime = seconds;
    sequencer.play();
  },
  render({ samples }) {
    const channels = [new Float32Array(samples), new Float32Array(samples)];
    for (let at = 0; at < samples; at += BLOCK) {
      sequencer.processTick();
      synth.process(channels[0], channels[1], at, Math.min(BLOCK, samples - at));
    }
    return channels;
  },
};

let last = Promise.resolve();
onmessage = ({ data: { task, id, ...rest } }) => {
  last = last.then(async () => {
    try {
      const result = await tasks[task](rest);
      postMessage({ id, result }, Array.isArray(result) ? result.map((samples) => samples.buffer) : []);
    } catch (error) {
      postMessage({ id, error: String(error?.message ?? error) });
    }
  });
};
