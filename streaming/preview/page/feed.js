// Talks to the engine: one request at a time, so that a slow line gets fewer pictures instead of older ones.

const viewer = Math.random().toString(36).slice(2, 14);

/** Two uint32 lengths, JSON, run-length label map, JPEG. */
function unpack(buffer) {
  const sizes = new DataView(buffer);
  const head = 8 + sizes.getUint32(0, true);
  const labels = head + sizes.getUint32(4, true);
  return {
    state: JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, head - 8))),
    labels: new Uint8Array(buffer, head, labels - head),
    jpeg: new Uint8Array(buffer, labels),
  };
}

async function refusal(reply) {
  const content = await reply.json().catch(() => ({}));
  return new Error(content.error || `the engine answers ${reply.status}`);
}

/** The newest message of a source other than number `after`; waits up to a second for one. */
export async function next(source, after, signal) {
  const query = new URLSearchParams({ viewer, source, after });
  const reply = await fetch(`feed?${query}`, { signal: AbortSignal.any([signal, AbortSignal.timeout(8000)]) });
  if (!reply.ok) throw await refusal(reply);
  return unpack(await reply.arrayBuffer());
}

/** Asks the engine to do something; returns what it answers or throws what it says. */
export async function act(op, source, details = {}) {
  const body = JSON.stringify({ op, source, ...details });
  const reply = await fetch("do", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  if (!reply.ok) throw await refusal(reply);
  return (await reply.json()).result;
}
