// Talks to the server. What goes wrong becomes a Problem with a sentence for people.
// Knows nothing of the page.

const PATIENCE = 6; // times that a busy server is asked
const MINUTE = 60;

export class Problem extends Error {
  /** `status` is that of HTTP, or 0 where the server did not answer. */
  constructor(detail, status = 0) {
    super(detail);
    this.status = status;
  }
}

export const aborted = (error) => error.name === "AbortError";

const pause = (milliseconds, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });

async function problem(answer) {
  const told = await answer.json().catch(() => ({}));
  return new Problem(
    told.detail || told.title || `The server answered ${answer.status}.`,
    answer.status,
  );
}

async function once(path, { signal, body, as = "json" }) {
  try {
    const answer = await fetch(path, { signal, body, method: body ? "POST" : "GET" });
    if (answer.ok) return [await answer[as]()];
    if (answer.status === 401) location.reload(); // the server then shows the log-in
    if (answer.status !== 503) throw await problem(answer);
    return [null, Math.min(Number(answer.headers.get("Retry-After")) || 1, MINUTE), answer];
  } catch (error) {
    if (error instanceof Problem || aborted(error)) throw error;
    throw new Problem("The server does not answer.");
  }
}

async function call(path, options = {}) {
  for (let tries = 1; ; tries++) {
    const [told, seconds, answer] = await once(path, options);
    if (!seconds) return told;
    if (tries === PATIENCE) throw await problem(answer);
    options.busy?.(seconds);
    await pause(1000 * seconds, options.signal);
  }
}

export const library = (signal) => call("/api/library", { signal });
export const facts = (row, version, signal) =>
  call(`/api/images/${row}/facts?v=${encodeURIComponent(version)}`, { signal });

export function images({ offset, limit, where }, signal) {
  const wish = new URLSearchParams({ offset, limit });
  if (where) wish.set("where", JSON.stringify(where));
  return call(`/api/images?${wish}`, { signal });
}

/** Ask with form fields for "search" or "recommend"; `busy(seconds)` hears of each wait. */
export const ask = (kind, body, signal, busy) => call(`/api/${kind}`, { body, signal, busy });

/** A heat map: a PNG, as a blob. */
export const explain = (body, signal) => call("/api/explain", { body, signal, as: "blob" });

/** Resolve once the server answers again. */
export async function recovered(signal) {
  for (let wait = 500; ; wait = Math.min(2 * wait, 4000)) {
    await pause(wait, signal);
    try {
      return await once("/api/health", { signal });
    } catch (error) {
      if (aborted(error)) throw error;
    }
  }
}
