// The query: its image, its name, and the selected part, drawn with mouse, finger or arrow keys.
// Does not talk to the server.

import { CORNERS, isSmall, moved, pointOver, resized, spanned } from "./box.js";
import { button, byId, caption as captionLine, debounce, el, icon, originalLink } from "./dom.js";
import { spots } from "./spots.js";

const STEP = 0.02; // of the image, for one press of an arrow key
const FIRST_BOX = [0.25, 0.25, 0.75, 0.75];
const TOUCH = matchMedia("(hover: none) and (pointer: coarse)");
const CANNOT_SHOW =
  "This browser cannot show the picture. The server may still be able to read it.";
const CANNOT_LOAD = "The picture could not be loaded.";
const SETTLE_MS = 350; // after the last key, before the box is searched with
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

let shown = null; // the query that is shown
let parts = null; // its elements
let broken = false; // whether the image could not be loaded
let suggested = []; // parts of it that are worth a search, in fractions of the image
let choosing = false; // whether a finger on the picture chooses a part; it scrolls otherwise
let box = null; // [left, top, right, bottom], fractions of the image
let notify = () => {};
const notifySoon = debounce(() => notify(box), SETTLE_MS);

/** URL of the query image in full size. */
export const originalUrl = () => parts?.original ?? null;

/** Call `listener(box)` when a part has been selected, or null when it is cleared. */
export const onBox = (listener) => (notify = listener);

/** Show a query: {key, name, source: a URL or a file, original: its URL, if that is another},
    or {key, name, missing: why it cannot be shown}, or {key, name, words}. */
export function show(query, selected) {
  byId("query").hidden = !query;
  if (query?.key !== shown?.key) suggested = [];
  if (query?.key !== shown?.key || broken) build(query);
  shown = query;
  notifySoon.cancel();
  if (parts) draw(selected);
  showSpots();
}

function build(query) {
  if (parts) URL.revokeObjectURL(parts.original); // does nothing for a URL of the server
  parts = null;
  broken = choosing = false;
  const nodes = [];
  if (query?.source) {
    const source = query.source instanceof Blob ? URL.createObjectURL(query.source) : query.source;
    const original = query.original ?? source;
    nodes.push(...preview(source, query.name), caption(original, query.name));
    parts.original = original;
  } else if (query?.words)
    nodes.push(el("blockquote", { className: "words" }, `“${query.words}”`));
  else if (query) nodes.push(placeholder(query.missing), caption(null, query.name));
  byId("query").replaceChildren(...nodes);
}

const placeholder = (text) => el("p", { className: "placeholder" }, icon("picture"), text);

function preview(source, name) {
  const area = el("div", { className: "crop-area" });
  const image = el("img", { src: source, alt: `Your picture: ${name}`, draggable: false });
  const cropBox = el(
    "div",
    { className: "crop-box", tabIndex: 0, hidden: true, role: "application" },
    ...Object.keys(CORNERS).map((corner) => el("i", { "data-corner": corner })),
  );
  image.addEventListener("load", () => {
    area.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
    area.classList.add("ready");
  });
  image.addEventListener("error", () => {
    broken = true; // it is tried again with the next search
    const own = source.startsWith("blob:");
    area.replaceWith(placeholder(own ? CANNOT_SHOW : CANNOT_LOAD));
  });
  const spotLayer = el("div", { className: "spots" });
  area.append(image, cropBox, spotLayer);
  area.addEventListener("pointerdown", onPointerDown);
  cropBox.addEventListener("keydown", onKeyDown);
  const select = button("Choose a part", { id: "select-part", onclick: selectPart }, "crop");
  const clear = button("Whole picture", { id: "clear-part", onclick: clearPart }, "close");
  parts = { area, cropBox, select, clear, spots: spotLayer };
  return [
    area,
    el(
      "p",
      { className: "hint" },
      el("span", { className: "for-mouse" }, "Drag on the picture to search with a part."),
      el("span", { className: "for-touch" }, "Choose a part, then drag its corners."),
    ),
    el("div", { className: "buttons" }, select, clear),
  ];
}

function caption(original, name) {
  const link = original && originalLink("round", original, `Open the original of ${name}`);
  return el("figcaption", {}, captionLine(name), link);
}

/** Show suggested parts on the picture: boxes in fractions of it. */
export function suggest(boxes) {
  suggested = boxes;
  showSpots();
}

function showSpots() {
  const choose = (part) => {
    choosing = false;
    draw(part);
    parts.cropBox.focus();
    notifyNow();
  };
  parts?.spots.replaceChildren(...spots(suggested, box, choose));
}

function draw(selected) {
  box = selected;
  const { cropBox, select, clear } = parts;
  cropBox.hidden = clear.hidden = !selected;
  select.hidden = Boolean(selected) && (choosing || !TOUCH.matches);
  select.lastChild.textContent = selected ? "Change the part" : "Choose a part";
  parts.area.classList.toggle("choosing", choosing);
  if (!selected) return;
  const [left, top, right, bottom] = selected.map((edge) => 100 * edge);
  Object.assign(cropBox.style, {
    left: `${left}%`,
    top: `${top}%`,
    width: `${right - left}%`,
    height: `${bottom - top}%`,
  });
  const [l, t, r, b] = [left, top, right, bottom].map(Math.round);
  cropBox.setAttribute(
    "aria-label",
    `Selected part: from ${l} to ${r} percent across, from ${t} to ${b} percent down. ` +
      "Arrow keys move it, arrow keys with Shift resize it, Escape clears it.",
  );
}

function selectPart() {
  choosing = true;
  draw(box ?? FIRST_BOX);
  parts.cropBox.focus();
  notifySoon();
}

function clearPart() {
  choosing = false;
  draw(null);
  parts.select.focus();
  notifyNow();
}

function notifyNow() {
  notifySoon.cancel();
  notify(box);
}

function onKeyDown(event) {
  const arrow = ARROWS[event.key];
  if (event.key === "Escape" || event.key === "Delete") clearPart();
  else if (event.key === "Enter") notifyNow();
  else if (arrow) {
    const step = arrow.map((direction) => direction * STEP);
    draw(event.shiftKey ? resized(box, step) : moved(box, step));
    notifySoon();
  } else return;
  event.preventDefault();
  event.stopPropagation();
}

/** The new box as a function of the pointer: resizes from a corner, moves from inside, or draws. */
function dragFrom(target, start) {
  const corner = CORNERS[target.dataset.corner];
  if (corner) {
    const pinned = corner.map((edge) => box[(edge + 2) % 4]);
    return (point) => spanned(pinned, point);
  }
  if (target === parts.cropBox) {
    const from = box;
    return ([x, y]) => moved(from, [x - start[0], y - start[1]]);
  }
  return (point) => spanned(start, point);
}

function onPointerDown(event) {
  if (event.button !== 0 || (event.pointerType === "touch" && !choosing)) return;
  if (event.target.closest(".spot")) return; // a press of its own
  const { area } = parts;
  const pointOf = (pointer) => pointOver(area, pointer);
  const before = box;
  const boxAt = dragFrom(event.target, pointOf(event));
  const drag = new AbortController();
  const end = (cancelled) => {
    drag.abort();
    if (cancelled || (box && isSmall(box))) draw(before);
    else if (box !== before) notifyNow();
  };
  const { signal } = drag;
  area.setPointerCapture(event.pointerId);
  area.addEventListener("pointermove", (move) => draw(boxAt(pointOf(move))), { signal });
  area.addEventListener("pointerup", () => end(false), { signal });
  area.addEventListener("pointercancel", () => end(true), { signal });
}
