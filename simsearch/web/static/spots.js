// Spots on a picture: suggested parts of it, each a button at its middle.

import { el } from "./dom.js";

const SAME = 0.02; // of the picture, by which the edges of a chosen part may differ from a spot's

/** Buttons for parts [left, top, right, bottom] but the chosen one; `onChoose` gets a part. */
export const spots = (parts, chosen, onChoose) =>
  parts.filter((part) => !isSame(part, chosen)).map((part) => spot(part, onChoose));

const isSame = (part, box) => box && part.every((edge, i) => Math.abs(edge - box[i]) < SAME);

function spot(part, onChoose) {
  const [left, top, right, bottom] = part;
  const [x, y] = [(left + right) / 2, (top + bottom) / 2];
  const node = el("button", {
    type: "button",
    className: "spot",
    title: "Search with this part",
    "aria-label": `Search with the part ${placeOf(x, y)}`,
    onclick: () => onChoose(part),
  });
  node.style.left = `${100 * x}%`;
  node.style.top = `${100 * y}%`;
  return node;
}

/** Where a point is: "at the top left", "in the middle". */
function placeOf(x, y) {
  const third = (value, low, high) => (value < 0.4 ? low : value > 0.6 ? high : "");
  const where = [third(y, "top", "bottom"), third(x, "left", "right")].filter(Boolean).join(" ");
  return where ? `at the ${where}` : "in the middle";
}
