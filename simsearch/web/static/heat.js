// Heat maps of why, laid over matches when they are asked for: for one, or for all in sight.

import * as api from "./api.js";
import { el, say } from "./dom.js";

const AT_ONCE = 2; // a map costs the server a pass through its network

let waiting = [];
let running = 0;
let job = new AbortController();
let fieldsFor = null;
const sight = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) turn(target, true);
  },
  { rootMargin: "100px" },
);

/** Forget the matches of before; `fields()` gives those of the new question. */
export function renew(fields) {
  job.abort();
  job = new AbortController();
  waiting = [];
  running = 0;
  sight.disconnect();
  fieldsFor = fields;
}

/** Turn the maps of all cards on, as they come in sight, or off. */
export function all(cards, on) {
  sight.disconnect();
  for (const card of cards)
    if (on) sight.observe(card);
    else turn(card, false);
}

/** Turn one map on or off. */
export function turn(card, on) {
  card.querySelector(".why")?.setAttribute("aria-pressed", String(on));
  card.classList.toggle("explained", on);
  waiting = waiting.filter((each) => each !== card);
  if (!on || card.matches(".mapping") || card.querySelector(".map")) return;
  waiting.push(card);
  pump();
}

export const isOn = (card) => card.classList.contains("explained");

function pump() {
  while (running < AT_ONCE && waiting.length) lay(waiting.shift(), job.signal);
}

async function lay(card, signal) {
  running += 1;
  card.classList.add("mapping");
  try {
    const body = await fieldsFor();
    body.append("match", card.dataset.row);
    show(card, await api.explain(body, signal));
  } catch (error) {
    if (api.aborted(error)) return; // of other matches, and counted anew
    turn(card, false);
    say(`No heat map: ${error.message}`);
  } finally {
    card.classList.remove("mapping");
    if (!signal.aborted) {
      running -= 1;
      pump();
    }
  }
}

function show(card, png) {
  const source = URL.createObjectURL(png);
  const map = el("img", {
    className: "map",
    alt: "Heat map: bright where it is alike",
    src: source,
  });
  map.addEventListener("load", () => URL.revokeObjectURL(source));
  card.querySelector(".picture").append(map);
}
