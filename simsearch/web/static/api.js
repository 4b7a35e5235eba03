// HTTP client of the server's API: retries while it is busy, and turns failures into ApiError.
// Does not touch the page.

const MAX_TRIES = 6; // while the server is busy
const MAX_WAIT_SECONDS = 60;
const MIN_HEALTH_WAIT_MS = 500;
const MAX_HEALTH_WAIT_MS = 4000;

/** A failed request: a message for people, and the HTTP status, 0 where there was no answer. */
export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export const isAbort = (error) => error.name === "AbortError";

const sleep = (milliseconds, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });

async function errorFrom(response) {
  const { detail, title } = await response.json().catch(() => ({}));
  return new ApiError(
    detail || title || `The server answered ${response.status}.`,
    response.status,
  );
}

const ADDRESS = /^[^?]*?\/(?=api\/images\/\d+)/; // what stands before it differs behind a proxy

/** The JSON of a response, with addresses of images that start from this page. */
const read = async (response) =>
  JSON.parse(await response.text(), (name, value) =>
    (name === "image" || name === "thumbnail") && typeof value === "string"
      ? value.replace(ADDRESS, "")
      : value,
  );

/** Send one request: {data}, or {retryAfter: seconds, response} where the server is busy. */
async function send(path, { signal, body, json, as = "json" }) {
  const sent = json ? JSON.stringify(json) : body;
  const headers = json ? { "Content-Type": "application/json" } : {};
  try {
    const method = sent ? "POST" : "GET";
    const response = await fetch(path, { signal, body: sent, headers, method });
    if (response.ok) return { data: as === "json" ? await read(response) : await response[as]() };
    if (response.status === 401) location.reload(); // the server then shows the login form
    if (response.status !== 503) throw await errorFrom(response);
    const seconds = Number(response.headers.get("Retry-After")) || 1;
    return { retryAfter: Math.min(seconds, MAX_WAIT_SECONDS), response };
  } catch (error) {
    if (error instanceof ApiError || isAbort(error)) throw error;
    throw new ApiError("The server does not answer.");
  }
}

async function call(path, options = {}) {
  for (let tries = 1; ; tries++) {
    const { data, retryAfter, response } = await send(path, options);
    if (!retryAfter) return data;
    if (tries === MAX_TRIES) throw await errorFrom(response);
    options.onBusy?.(retryAfter);
    await sleep(1000 * retryAfter, options.signal);
  }
}

/** An address of this server that starts with "/", from this page: {root}/a/b becomes "a/b". */
export const beside = (address) => {
  const here = location.pathname.slice(0, location.pathname.lastIndexOf("/") + 1);
  return address.startsWith(here) ? address.slice(here.length) : address.replace(/^\//, "");
};

/** The libraries of a server that has several. */
export const libraries = () => call("api/libraries");

export const library = (signal) => call("api/library", { signal });

export const image = (row, version, signal) =>
  call(`api/images/${row}/facts?v=${encodeURIComponent(version)}`, { signal });

export function images({ offset, limit, where }, signal) {
  const parameters = new URLSearchParams({ offset, limit, shapes: true });
  if (where) parameters.set("where", JSON.stringify(where));
  return call(`api/images?${parameters}`, { signal });
}

/** POST form fields to "search" or "recommend"; `onBusy(seconds)` is called before each retry. */
export const search = (endpoint, body, signal, onBusy) =>
  call(`api/${endpoint}?shapes=true`, { body, signal, onBusy });

/** Parts of a picture to search with, from {version, row} or {version, image}; asked once. */
export async function suggestedParts(body, signal) {
  const { data } = await send("api/suggest", { body, signal });
  return data?.parts ?? [];
}

/** A heat map: a PNG, as a blob. */
export const explain = (body, signal) => call("api/explain", { body, signal, as: "blob" });

/** Where the pictures lie on a map: "pca" or "tsne". */
export const map = (method) => call(`api/map?method=${method}`);

/** How far the search for duplicates is, and its groups from `offset` on. */
export const duplicates = (offset, limit) => call(`api/duplicates?offset=${offset}&limit=${limit}`);

export const findDuplicates = () => call("api/duplicates/search", { json: {} });

/** A plan of a clean-up, which the server never carries out. */
export const planDuplicates = (json) => call("api/duplicates/plan", { json });

/** Resolve once the server answers again. */
export async function serverIsBack(signal) {
  for (let wait = MIN_HEALTH_WAIT_MS; ; wait = Math.min(2 * wait, MAX_HEALTH_WAIT_MS)) {
    await sleep(wait, signal);
    try {
      return await send("api/health", { signal });
    } catch (error) {
      if (isAbort(error)) throw error;
    }
  }
}
