// The server's API (openapi.json).

/** An answer that is none: what the server says, for people. */
export class Problem extends Error {
  constructor({ message, hint, line }) {
    super(hint ? `${message} – ${hint}` : message);
    this.line = line;
  }
}

const away = () => new Problem({ message: "The server does not answer", hint: "is it still running?" });

async function ask(path, options) {
  const answer = await fetch(path, options).catch(() => { throw away(); });
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({ message: `${answer.status} ${answer.statusText}` }));
  throw new Problem(problem);
}

const post = (path, body, type) => ask(path, { method: "POST", body, headers: type ? { "Content-Type": type } : {} });

export const model = async () => (await ask("api/model")).json();
export const compose = async (wanted) => (await post("api/pieces", JSON.stringify(wanted), "application/json")).json();
export const stop = (id) => post(`api/pieces/${id}/stop`);
export const resume = (id) => post(`api/pieces/${id}/resume`);
export const upload = async (file) => (await post(`api/scores?name=${encodeURIComponent(file.name)}`, file, "application/octet-stream")).json();
export const convert = (abc, to) => post(`api/convert?to=${to}`, abc, "text/vnd.abc");

const EVENTS = ["queued", "began", "text", "music", "finished", "stopped", "failed", "closed"];
const TRIES = 4;
const LAST = ["finished", "stopped", "failed", "closed"];

/** Follows a piece; returns what ends that. `hear` gets each event's name, data and id. */
export function follow(id, after, hear, lost) {
  const source = new EventSource(`api/pieces/${id}/events${after ? `?after=${after}` : ""}`);
  for (const name of EVENTS) {
    source.addEventListener(name, (event) => {
      if (LAST.includes(name)) source.close();
      hear(name, JSON.parse(event.data), event.lastEventId);
    });
  }
  // The browser tries again by itself, unless the piece is gone; that the server is gone it does not find out.
  let failures = 0;
  source.onopen = () => { failures = 0; };
  source.onerror = () => {
    if (source.readyState !== EventSource.CLOSED && ++failures < TRIES) return;
    source.close();
    lost(away());
  };
  return () => source.close();
}
