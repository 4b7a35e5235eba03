// A range of numbers: a slider with two handles, and a field for each end.

import { el, readable } from "./dom.js";

const STEPS = 200; // of a slider

/** Rounds to whole numbers where the ends are whole and far apart. */
function stepOf(min, max) {
  if (Number.isInteger(min) && Number.isInteger(max) && max - min >= 10)
    return Math.max(1, Math.round((max - min) / STEPS));
  return Number(((max - min) / STEPS).toPrecision(2)) || 1;
}

const shown = (value) => value.toLocaleString("en", { maximumFractionDigits: 2 });

/** {node, show(range)}: `onChange({from, to})` gets what was chosen, null for any number. */
export function rangeSlider({ name, min, max }, onChange) {
  const label = readable(name);
  let range = {};
  const change = (end, value) => {
    const { [end]: _, ...other } = range;
    const next = value === null ? other : { ...other, [end]: value };
    onChange(Object.keys(next).length ? next : null);
  };
  const field = (end, placeholder) => {
    const input = el("input", { type: "number", step: "any", placeholder, "aria-label": `${label} ${end}` });
    input.addEventListener("change", () => change(end, input.value === "" ? null : input.valueAsNumber));
    return input;
  };
  const fields = { from: field("from", min), to: field("to", max) };
  const separator = el("span", { "aria-hidden": "true" }, "to");
  const inputs = el("div", { className: "range" }, fields.from, separator, fields.to);
  const slider = min < max ? handles(label, min, max, change) : null;
  const show = (given) => {
    range = given ?? {};
    for (const [end, input] of Object.entries(fields)) input.value = range[end] ?? "";
    slider?.show(range);
  };
  return { node: el("div", { className: "range-group" }, slider?.node ?? "", inputs), show };
}

/** Two range inputs over one another, each of which stops at the other. */
function handles(label, min, max, change) {
  const step = stepOf(min, max);
  const track = el("div", { className: "handles" });
  const handle = (end, text) =>
    el("input", { type: "range", min, max, step, "aria-label": `${text} ${label.toLowerCase()}`, "data-end": end });
  const low = handle("from", "Lowest");
  const high = handle("to", "Highest");
  const paint = () => {
    const part = (value) => (100 * (value - min)) / (max - min);
    track.style.setProperty("--from", `${part(Number(low.value))}%`);
    track.style.setProperty("--to", `${part(Number(high.value))}%`);
    for (const input of [low, high]) input.setAttribute("aria-valuetext", shown(Number(input.value)));
    low.classList.toggle("above", Number(low.value) > (min + max) / 2); // or it could not be reached
  };
  low.addEventListener("input", () => {
    low.value = Math.min(Number(low.value), Number(high.value));
    paint();
  });
  high.addEventListener("input", () => {
    high.value = Math.max(Number(low.value), Number(high.value));
    paint();
  });
  // The last step may end before the largest number: the end of the slider stands for it.
  low.addEventListener("change", () => change("from", Number(low.value) <= min ? null : Number(low.value)));
  high.addEventListener("change", () =>
    change("to", Number(high.value) > max - step ? null : Number(high.value)),
  );
  track.append(el("span", { className: "handles-track" }), low, high);
  const show = ({ from, to }) => {
    low.value = from ?? min;
    high.value = to ?? max;
    paint();
  };
  show({});
  return { node: track, show };
}
