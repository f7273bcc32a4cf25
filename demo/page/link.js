// Links that write a piece again: weights, prompt, settings and seed, and the music that it goes on from.

const NUMBERS = ["seed", "top_k", "top_p", "temperature", "max_patches"];

async function through(stream, bytes) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

async function pack(text) {
  const bytes = await through(new CompressionStream("deflate-raw"), new TextEncoder().encode(text));
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

async function unpack(packed) {
  const binary = atob(packed.replace(/-/g, "+").replace(/_/g, "/"));
  return new TextDecoder().decode(await through(new DecompressionStream("deflate-raw"), Uint8Array.from(binary, (c) => c.charCodeAt(0))));
}

/** The link of a piece. What follows the # stays in the browser. */
export async function write(settings, sha256) {
  const fields = new URLSearchParams({ weights: sha256.slice(0, 16) });
  if (settings.prompt.length > 0) fields.set("prompt", settings.prompt.join("_"));
  for (const name of NUMBERS) if (settings[name] != null) fields.set(name, settings[name]);
  if (settings.music) fields.set("music", await pack(settings.music));
  return `${location.href.split("#")[0]}#${fields}`;
}

/** What a link asks for; nothing if it is none. */
export async function read(hash) {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  if (!fields.has("weights") || !fields.has("seed")) return null;
  const settings = { prompt: fields.get("prompt")?.split("_") ?? [] };
  for (const name of NUMBERS) {
    const value = Number(fields.get(name));
    if (fields.get(name) && Number.isFinite(value)) settings[name] = value;
  }
  if (fields.has("music")) settings.music = await unpack(fields.get("music"));
  return { weights: fields.get("weights"), settings };
}
