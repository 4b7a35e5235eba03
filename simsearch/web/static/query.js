// The query: its picture, its name, and the part of it that is searched with, drawn with a mouse,
// a finger or the arrow keys. Knows nothing of the server.

import { byId, el, elided, icon, later } from "./dom.js";

const STEP = 0.02; // of the picture, for one press of an arrow key
const LEAST = 0.04; // of the picture; less is taken for a click
const FIRST = [0.25, 0.25, 0.75, 0.75];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const CORNERS = { nw: [0, 1], ne: [2, 1], sw: [0, 3], se: [2, 3] }; // the edges that each one moves

let shown = null; // what the stage shows
let parts = null; // its elements
let box = null;
let tell = () => {};
const soon = later(() => tell(box), 350);

/** Address of the picture in full. */
export const original = () => parts?.original ?? null;

/** Call `listener(box)` once a part has been chosen, or null once it is cleared. */
export const onBox = (listener) => (tell = listener);

/** Show a query: {key, name, source: an address or a file, original: its address, if that is another},
    or {key, name, lost: why it cannot be seen}. */
export function show(query, part) {
  byId("stage").hidden = !query;
  if (query?.key !== shown?.key) build(query);
  shown = query;
  soon.cancel();
  if (parts) draw(part);
}

function build(query) {
  if (parts) URL.revokeObjectURL(parts.original); // does nothing where it is no file's
  parts = null;
  const nodes = [];
  if (query?.source) {
    const source = query.source instanceof Blob ? URL.createObjectURL(query.source) : query.source;
    const original = query.original ?? source;
    nodes.push(...staged(source, query.name), caption(original, query.name));
    parts.original = original;
  } else if (query) nodes.push(blank(query.lost), caption(null, query.name));
  byId("stage").replaceChildren(...nodes);
}

const blank = (words) => el("p", { className: "blank" }, icon("picture"), words);

function staged(source, name) {
  const frame = el("div", { className: "frame" });
  const image = el("img", { src: source, alt: `Your picture: ${name}`, draggable: false });
  const mark = el(
    "div",
    { className: "mark", tabIndex: 0, hidden: true, role: "application" },
    ...Object.keys(CORNERS).map((corner) => el("i", { "data-corner": corner })),
  );
  image.addEventListener("load", () => {
    frame.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
    frame.classList.add("ready");
  });
  image.addEventListener("error", () =>
    frame.replaceWith(blank("This browser cannot show the picture; the search may still read it.")),
  );
  frame.append(image, mark);
  frame.addEventListener("pointerdown", drag);
  mark.addEventListener("keydown", press);
  const choose = el(
    "button",
    { type: "button", className: "button", id: "part", onclick: begin },
    icon("crop"),
    el("span", {}, "Choose a part"),
  );
  const clear = el(
    "button",
    { type: "button", className: "button", id: "whole", onclick: wipe },
    icon("close"),
    el("span", {}, "Whole picture"),
  );
  parts = { frame, mark, choose, clear };
  return [
    frame,
    el("p", { className: "hint" }, "Drag over it to search by a part."),
    el("div", { className: "ways" }, choose, clear),
  ];
}

function caption(source, name) {
  const original =
    source &&
    el(
      "a",
      {
        className: "round",
        href: source,
        target: "_blank",
        rel: "noopener",
        title: "Open the original",
        "aria-label": `Open the original of ${name}`,
      },
      icon("open"),
    );
  return el("figcaption", {}, elided(name), original);
}

function draw(part) {
  box = part;
  const { mark, choose, clear } = parts;
  mark.hidden = clear.hidden = !part;
  choose.hidden = Boolean(part);
  if (!part) return;
  const [left, top, right, bottom] = part.map((edge) => 100 * edge);
  Object.assign(mark.style, {
    left: `${left}%`,
    top: `${top}%`,
    width: `${right - left}%`,
    height: `${bottom - top}%`,
  });
  const [l, t, r, b] = part.map((edge) => Math.round(100 * edge));
  mark.setAttribute(
    "aria-label",
    `The part that is searched with: from ${l} to ${r} percent across, ` +
      `${t} to ${b} percent down. Arrow keys move it, with Shift they resize it, Escape clears it.`,
  );
}

function begin() {
  draw(FIRST);
  parts.mark.focus();
  soon();
}

function wipe() {
  draw(null);
  parts.choose.focus();
  soon.cancel();
  tell(null);
}

function press(event) {
  const arrow = ARROWS[event.key];
  if (event.key === "Escape" || event.key === "Delete") wipe();
  else if (event.key === "Enter") settle();
  else if (arrow) {
    draw(
      event.shiftKey
        ? resized(box, arrow)
        : moved(
            box,
            arrow.map((way) => way * STEP),
          ),
    );
    soon();
  } else return;
  event.preventDefault();
  event.stopPropagation();
}

function settle() {
  soon.cancel();
  tell(box);
}

const inside = (value, low = 0, high = 1) => Math.min(high, Math.max(low, value));
const rounded = (part) => part.map((edge) => Number(edge.toFixed(4)));

function moved([left, top, right, bottom], [x, y]) {
  const across = inside(x, -left, 1 - right);
  const down = inside(y, -top, 1 - bottom);
  return rounded([left + across, top + down, right + across, bottom + down]);
}

function resized([left, top, right, bottom], [x, y]) {
  return rounded([
    left,
    top,
    inside(right + x * STEP, left + LEAST),
    inside(bottom + y * STEP, top + LEAST),
  ]);
}

const between = ([x, y], [u, v]) =>
  rounded([Math.min(x, u), Math.min(y, v), Math.max(x, u), Math.max(y, v)]);

/** What a drag makes of the box, by where it begins: on a corner, inside, or elsewhere. */
function pull(event, start) {
  const corner = CORNERS[event.target.dataset.corner];
  if (corner) {
    const pinned = corner.map((edge) => box[(edge + 2) % 4]);
    return (point) => between(pinned, point);
  }
  if (event.target === parts.mark) {
    const from = box;
    return ([x, y]) => moved(from, [x - start[0], y - start[1]]);
  }
  return (point) => between(start, point);
}

function drag(event) {
  if (event.button !== 0) return;
  const { frame } = parts;
  const at = ({ clientX, clientY }) => {
    const { left, top, width, height } = frame.getBoundingClientRect();
    return [inside((clientX - left) / width), inside((clientY - top) / height)];
  };
  const before = box;
  const change = pull(event, at(event));
  const ends = new AbortController();
  const end = (cancelled) => {
    ends.abort();
    const small = box && (box[2] - box[0] < LEAST || box[3] - box[1] < LEAST);
    if (cancelled || small) draw(before);
    else if (box !== before) settle();
  };
  const { signal } = ends;
  frame.setPointerCapture(event.pointerId);
  frame.addEventListener("pointermove", (move) => draw(change(at(move))), { signal });
  frame.addEventListener("pointerup", () => end(false), { signal });
  frame.addEventListener("pointercancel", () => end(true), { signal });
}
