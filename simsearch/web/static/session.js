// What the modules of the page share: the description of the served library, and the abort signal
// of the present requests. A new job aborts the requests of the last one.

import * as api from "./api.js";
import { hide } from "./messages.js";

let description = null;
let job = new AbortController();
let notify = () => {};

/** What /api/library said, or null before its first answer. */
export const library = () => description;

/** Call `listener(library)` each time that the description is loaded. */
export const onLibrary = (listener) => (notify = listener);

export async function loadLibrary(signal) {
  description = await api.library(signal);
  notify(description);
}

export const thumbnailUrl = (row) =>
  `api/images/${row}/thumbnail?v=${encodeURIComponent(description.version)}`;

export const currentSignal = () => job.signal;

export function newJob() {
  job.abort();
  job = new AbortController();
  hide("banner");
  return job.signal;
}
