// Pictures in a grid: those of the library, and matches with their scores. Says what was pressed,
// and decides nothing.

import { el, elided, icon, title } from "./dom.js";
import { addressOf } from "./state.js";

const STEPS = { ArrowLeft: -1, ArrowRight: 1 };
const KEYS = { l: "like", d: "dislike", w: "why" };
const SIZES = "(max-width: 600px) 46vw, 240px";

/** Call `act(what, row, card)` for what is pressed in a list, with the mouse or a key. */
export function listen(list, act) {
  list.addEventListener("click", (event) => {
    const target = event.target.closest("[data-act]");
    if (!target || event.ctrlKey || event.metaKey || event.shiftKey) return; // a new tab, perhaps
    event.preventDefault();
    act(
      target.dataset.act,
      Number(target.closest("[data-row]").dataset.row),
      target.closest(".card"),
    );
  });
  list.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !event.target.matches(".picture")) return;
    const here = event.target.closest(".card");
    const button = KEYS[event.key] && here.querySelector(`[data-act=${KEYS[event.key]}]`);
    const there = neighbour(list, here, event.key);
    there?.querySelector(".picture")?.focus();
    button?.click();
    if (there || button) event.preventDefault();
  });
}

function neighbour(list, here, key) {
  const cards = [...list.children];
  const place = cards.indexOf(here);
  const below = cards.findIndex((card) => card.offsetTop > cards[0].offsetTop);
  const row = below < 0 ? cards.length : below;
  const steps = {
    ...STEPS,
    ArrowUp: -row,
    ArrowDown: row,
    Home: -place,
    End: cards.length - 1 - place,
  };
  return key in steps ? cards[place + steps[key]] : null;
}

/** A card for an image of the library, or for a match. */
export function card(image, state) {
  const name = title(image);
  const scored = "score" in image;
  const picture = el(
    "a",
    {
      className: "picture",
      href: addressOf(image.row),
      draggable: false,
      "data-act": "search",
      "aria-label": `Search from ${name}`,
    },
    thumbnail(image),
  );
  return el(
    "li",
    { className: "card", "data-row": image.row },
    el("div", { className: "shot" }, picture, scored ? buttons(image, name, state) : null),
    scored ? facts(image) : null,
    elided(name),
    scored && image.duplicates.length ? folded(image.duplicates) : null,
  );
}

export const skeletons = (count) =>
  Array.from({ length: count }, () =>
    el(
      "li",
      { className: "card skeleton", "aria-hidden": "true" },
      el("div", { className: "shot" }, el("div", { className: "picture" })),
      el("span", { className: "elided" }, "\u00a0"),
    ),
  );

export function thumbnail(image, alt = "") {
  const sized = (size) => `${image.thumbnail}&size=${size}`;
  const node = el("img", {
    alt,
    loading: "lazy",
    decoding: "async",
    draggable: false,
    sizes: SIZES,
  });
  node.addEventListener("load", () => node.classList.add("ready"));
  node.addEventListener("error", () =>
    node.replaceWith(el("span", { className: "gone" }, "cannot be shown")),
  );
  node.srcset = `${sized(256)} 256w, ${sized(512)} 512w`;
  node.src = sized(256);
  return node;
}

function buttons(image, name, state) {
  const toggle = (what, words, pressed) =>
    el(
      "button",
      {
        type: "button",
        className: `act ${what}`,
        "data-act": what,
        "aria-pressed": String(pressed),
        title: words,
        "aria-label": `${words}: ${name}`,
      },
      icon(what),
    );
  return el(
    "div",
    { className: "acts" },
    toggle("like", "More like this", state.liked.includes(image.row)),
    toggle("dislike", "Less like this", state.disliked.includes(image.row)),
    toggle("why", "Why it matches", false),
    el(
      "a",
      {
        className: "act open",
        href: image.image,
        target: "_blank",
        rel: "noopener",
        title: "Open the original",
        "aria-label": `Open the original: ${name}`,
      },
      icon("open"),
    ),
  );
}

function facts({ score, percentile }) {
  const share = standing(percentile);
  const bar = el("i");
  bar.style.width = `${100 * Math.max(0, Math.min(1, score))}%`;
  return el(
    "p",
    {
      className: "facts",
      title: `Cosine ${score.toFixed(3)}${share ? `, ${share} of random pairs` : ""}`,
    },
    el("b", {}, score.toFixed(3)),
    el("span", { className: "bar-of", "aria-hidden": "true" }, bar),
    el("span", { className: "share" }, share),
  );
}

/** Where a score lies among random pairs: "top 0.4%", as the library prints it. */
function standing(percentile) {
  if (percentile === null) return "";
  if (percentile <= 50) return `low ${percentile.toFixed(0)}%`;
  return `top ${Number(Math.max(100 - percentile, 0.01).toPrecision(2))}%`;
}

function folded(duplicates) {
  const list = el(
    "ul",
    { className: "fold", hidden: true },
    ...duplicates.map((image) =>
      el(
        "li",
        { "data-row": image.row },
        el(
          "a",
          {
            href: addressOf(image.row),
            "data-act": "search",
            title: image.path,
            "aria-label": `Search from ${title(image)}`,
          },
          thumbnail(image),
        ),
      ),
    ),
  );
  const button = el(
    "button",
    { type: "button", className: "alike", "aria-expanded": "false" },
    icon("stack"),
    `+${duplicates.length} alike`,
  );
  button.addEventListener("click", () => {
    list.hidden = !list.hidden;
    button.setAttribute("aria-expanded", String(!list.hidden));
  });
  return el("div", {}, button, list);
}
