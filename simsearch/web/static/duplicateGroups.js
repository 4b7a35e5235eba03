// Groups of duplicates as cards: the picture that stays, its copies, and buttons to choose.

import * as choices from "./choices.js";
import { button, caption, el, plural } from "./dom.js";
import { thumbnail } from "./grid.js";

const EDITS = {
  identical: "Identical",
  recompressed: "Saved again",
  resized: "Resized",
  crop: "Cropped",
  border: "Border added",
  screenshot: "In a screenshot",
  rotated: "Slightly turned",
  turn: "Turned",
  mirror: "Mirrored",
  watermark: "Watermark",
  grey: "Greyscale",
  tint: "Colours changed",
  "same file": "Same file",
};
const REASONS = {
  "of which the picture that stays is a part, or was made": [
    "it shows more than the kept picture",
    "they show more than the kept pictures",
  ],
  "not confirmed as a copy of the picture that stays": [
    "it could not be confirmed as a copy",
    "they could not be confirmed as copies",
  ],
  "further paths of one file": [
    "it is another name of the same file",
    "they are other names of the same files",
  ],
};
const UNITS = ["bytes", "kB", "MB", "GB", "TB"];

/** A size in bytes for people: "1.2 MB". */
export function bytes(size) {
  let [value, unit] = [size, 0];
  while (value >= 1000 && unit < UNITS.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${unit && value < 100 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

/** In plain words why a picture stays, or several do. */
export const reasonText = (reason, count = 1) => REASONS[reason]?.[count === 1 ? 0 : 1] ?? reason;

/** A card for a group; `onChange()` is called whenever something else is chosen. */
export function groupCard(group, version, onChange) {
  const card = el("section", { className: "copies", "aria-label": `Group ${group.group}` });
  const render = (focus) => {
    const active = focus && [focus.row, focus.action];
    card.replaceChildren(...parts(group, choose));
    card.classList.toggle("alone", choices.of(group).alone);
    const pressed = active && card.querySelector(`[data-choice="${active.join(" ")}"]`);
    if (active) (pressed ?? card.querySelector(".choose button") ?? card).focus();
  };
  const choose = (changes, row, action) => {
    choices.change(group, changes);
    render({ row, action });
    onChange();
  };
  render(null);
  return card;
}

function parts(group, choose) {
  const { alone } = choices.of(group);
  const toggle = button("Leave this group alone", {
    className: "button small",
    "data-choice": "group alone",
    "aria-pressed": String(alone),
    onclick: () => choose({ alone: !alone }, "group", "alone"),
  });
  return [
    el(
      "header",
      {},
      el("h2", {}, `Group ${group.group}`),
      el("p", { className: "note" }, plural(group.images.length, "picture")),
      toggle,
    ),
    el("ul", { className: "copy-list" }, ...ordered(group).map((image) => entry(group, image, choose))),
  ];
}

/** The picture that stays, then the others. */
function ordered(group) {
  const { keep } = choices.of(group);
  return [...group.images].sort((a, b) => (b.row === keep) - (a.row === keep));
}

function entry(group, image, choose) {
  const { keep, apart, alone } = choices.of(group);
  const kept = image.row === keep;
  const goes = choices.goes(group, image);
  const name = image.path;
  const link = el(
    "a",
    {
      className: "picture",
      href: image.image,
      target: "_blank",
      rel: "noopener",
      "aria-label": `Open the original: ${name}`,
      title: "Open the original",
    },
    thumbnail(image),
  );
  const size = image.width ? `${image.width} × ${image.height} · ${bytes(image.bytes)}` : "Cannot be read";
  return el(
    "li",
    { className: `copy ${kept ? "kept" : goes ? "goes" : "stays"}`, "data-row": image.row },
    link,
    el("p", { className: "verdict" }, verdict(group, image, kept, goes)),
    caption(name.split("/").pop(), [size, folderOf(name)].filter(Boolean).join(" · "), name),
    kept || alone ? null : buttons(group, image, apart, choose),
  );
}

const folderOf = (path) => path.split("/").slice(0, -1).join("/");

function verdict(group, image, kept, goes) {
  const { apart, keep, stay } = choices.of(group);
  if (kept) return el("b", {}, "Stays");
  const known = keep === group.images[0].row; // the edit was told for that pair alone
  const edit = el("span", {}, known ? editText(image) : "Checked again when you export the plan");
  if (apart.includes(image.row)) return el("b", {}, "Not a duplicate");
  if (goes) return join(el("b", {}, "Can be removed"), edit);
  if (stay.includes(image.row) || !image.reason) return join(el("b", {}, "Stays"), edit);
  return join(el("b", {}, `Stays: ${reasonText(image.reason)}`), edit);
}

const editText = ({ edit }) => EDITS[edit] ?? (edit || "Similar");

const join = (...nodes) => {
  const line = document.createDocumentFragment();
  line.append(...nodes.flatMap((node, i) => (i ? [" ", node] : [node])));
  return line;
};

function buttons(group, image, apart, choose) {
  const { stay } = choices.of(group);
  const marked = apart.includes(image.row);
  const toggled = (list) =>
    list.includes(image.row) ? list.filter((row) => row !== image.row) : [...list, image.row];
  const choice = (text, action, properties, changes) =>
    button(text, {
      className: "button small",
      "data-choice": `${image.row} ${action}`,
      "aria-label": `${text}: ${image.path}`,
      onclick: () => choose(changes(), image.row, action),
      ...properties,
    });
  const swap = choice("Keep this one", "keep", { disabled: marked }, () => ({
    keep: image.row,
    stay: [],
    apart: [],
  }));
  const stays = choice(
    "Keep both",
    "stay",
    { "aria-pressed": String(stay.includes(image.row)), disabled: marked },
    () => ({ stay: toggled(stay) }),
  );
  const other = choice("Not a duplicate", "apart", { "aria-pressed": String(marked) }, () => ({
    apart: toggled(apart),
  }));
  return el("div", { className: "choose" }, swap, stays, other);
}
