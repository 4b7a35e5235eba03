// Heat maps over matches: for one card, or for all cards as they come into view.

import * as api from "./api.js";
import { announce, byId, el } from "./dom.js";

const MAX_REQUESTS = 2; // at once: each costs the server a pass through its network

let queue = [];
let running = 0;
let job = new AbortController();
let buildBody = null;
const viewport = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) toggle(target, true);
  },
  { rootMargin: "100px" },
);

/** Start over for new matches; `requestBody()` resolves to the form fields of their search. */
export function reset(requestBody) {
  job.abort();
  job = new AbortController();
  queue = [];
  running = 0;
  viewport.disconnect();
  byId("heat-legend").hidden = true;
  buildBody = requestBody;
}

/** Turn on the heat maps of all cards, as they come into view, or turn all off. */
export function toggleAll(cards, on) {
  viewport.disconnect();
  for (const card of [...cards].filter((each) => each.matches(".card")))
    if (on) viewport.observe(card);
    else toggle(card, false);
}

/** Turn one heat map on or off. */
export function toggle(card, on) {
  card.querySelector(".explain")?.setAttribute("aria-pressed", String(on));
  card.classList.toggle("explained", on);
  byId("heat-legend").hidden = !document.querySelector("#matches > .explained");
  queue = queue.filter((queued) => queued !== card);
  if (!on || card.matches(".loading-heatmap") || card.querySelector(".heatmap")) return;
  queue.push(card);
  runQueue();
}

export const isOn = (card) => card.classList.contains("explained");

function runQueue() {
  while (running < MAX_REQUESTS && queue.length) load(queue.shift(), job.signal);
}

async function load(card, signal) {
  running += 1;
  card.classList.add("loading-heatmap");
  try {
    const body = await buildBody();
    body.append("match", card.dataset.row);
    overlay(card, await api.explain(body, signal));
  } catch (error) {
    if (api.isAbort(error)) return; // `reset` has set the count to 0
    toggle(card, false);
    announce(`No heat map: ${error.message}`);
  } finally {
    card.classList.remove("loading-heatmap");
    if (!signal.aborted) {
      running -= 1;
      runQueue();
    }
  }
}

function overlay(card, png) {
  const source = URL.createObjectURL(png);
  const heatmap = el("img", {
    className: "heatmap",
    alt: "Heat map: bright where the pictures are similar",
    src: source,
  });
  heatmap.addEventListener("load", () => URL.revokeObjectURL(source));
  card.querySelector(".picture").append(heatmap);
}
