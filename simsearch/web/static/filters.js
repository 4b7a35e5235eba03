// Panel of settings and filters, built from the description of the library, and chips of the
// filters in use. Changes the state; sends nothing.

import { button, byId, debounce, el, icon, readable } from "./dom.js";
import { folderTree, treeOf } from "./folderTree.js";
import { rangeSlider } from "./rangeSlider.js";
import { hasThreshold, state, update } from "./state.js";

const LONG_LIST = 12; // checkboxes, above which a list can be searched
const DEFAULT_THRESHOLD = 0.5; // cosine, where the library has no automatic one
const TYPING_MS = 400; // pause after which typed text is searched for
const NARROW = matchMedia("(max-width: 700px)"); // where the panel is a sheet over the page
const WIDE = matchMedia("(min-width: 1100px)"); // where it stands beside the results
const REMEMBERED = "filters"; // whether it was open

let updaters = []; // functions of the state, one for each control

/** Build the panel for a library. */
export function build(library) {
  updaters = [];
  const columns = library.columns.filter((column) => column.name !== "path");
  byId("panel-form").replaceChildren(
    sheetHead(),
    countControl(library),
    thresholdControl(library),
    folderFilter(library.folders),
    ...columns.map((column) => (column.kind === "number" ? rangeFilter : valueFilter)(column)),
    textFilter("path", "File name contains"),
    el(
      "p",
      { className: "buttons" },
      button("Clear filters", { id: "clear-filters", onclick: clear }),
      button("Show the pictures", { className: "button primary sheet-only", onclick: () => setOpen(false) }),
    ),
  );
}

const sheetHead = () =>
  el(
    "p",
    { className: "sheet-head sheet-only" },
    el("b", {}, "Filters"),
    el(
      "button",
      { type: "button", className: "round", "aria-label": "Close the filters", onclick: () => setOpen(false) },
      icon("close"),
    ),
  );

/** Make the panel, the chips and the count show a state. */
export function render(current) {
  for (const updateControl of updaters) updateControl(current);
  const active = activeFilters(current);
  byId("clear-filters").disabled = !active.length;
  byId("filter-count").hidden = !active.length;
  byId("filter-count").textContent = active.length;
  byId("chips").hidden = !active.length;
  byId("chips").replaceChildren(...active.map(chip));
}

export const clear = () =>
  update({ folders: [], columns: {}, collection: null, ...(hasThreshold() ? { threshold: null } : {}) });

/** Open or close the panel; the focus goes with it. */
export function setOpen(open) {
  const panel = byId("panel");
  if (open === panel.open) return;
  if (!open) panel.close();
  else if (NARROW.matches) panel.showModal();
  else panel.show();
  remember(open);
  showOpen();
  const inside = panel.querySelectorAll("input:not(:disabled)");
  (open ? [...inside].find((each) => each.checkVisibility()) : byId("filters"))?.focus();
}

export const isOpen = () => byId("panel").open;

/** On wide screens the panel is open if it was when the page was left. */
export function listen() {
  try {
    byId("panel").open = WIDE.matches && localStorage.getItem(REMEMBERED) === "open";
  } catch {
    // storage is disabled
  }
  byId("panel").addEventListener("close", () => showOpen());
  byId("panel").addEventListener("click", (event) => {
    if (event.target === byId("panel")) setOpen(false); // beside the sheet
  });
  byId("panel-form").addEventListener("submit", (event) => event.preventDefault());
  showOpen();
}

function showOpen() {
  byId("filters").setAttribute("aria-expanded", String(isOpen()));
  byId("results").classList.toggle("beside-panel", isOpen());
}

function remember(open) {
  try {
    if (WIDE.matches) localStorage.setItem(REMEMBERED, open ? "open" : "closed");
  } catch {
    // storage is disabled: the panel is closed after a reload
  }
}

function group(legend, className, ...children) {
  return el("fieldset", { className }, el("legend", {}, legend), ...children);
}

/** A range input and the output beside it; `format(value)` gives the text of the output. */
function slider(id, label, limits, format, onChange) {
  const output = el("output", { for: id });
  const input = el("input", { type: "range", id, ...limits, "aria-label": label });
  input.addEventListener("input", () => (output.textContent = format(input.value)));
  input.addEventListener("change", () => onChange(Number(input.value)));
  return { input, output, row: el("div", { className: "slider" }, input, output) };
}

function countControl({ matches, images }) {
  const limits = { min: 1, max: Math.max(1, Math.min(matches, images)) };
  const onChange = (k) => update({ k }, "k");
  const { input, output, row } = slider("k", "Number of matches", limits, String, onChange);
  updaters.push(({ k }) => {
    input.value = k;
    output.textContent = input.value;
  });
  return group("Matches", "search-only", row);
}

function thresholdControl({ auto_threshold: auto }) {
  const format = (value) => Number(value).toFixed(2);
  const setThreshold = (threshold) => update({ threshold }, "threshold");
  const limits = { min: 0, max: 1, step: 0.01 };
  const label = "Lowest similarity";
  const { input, output, row } = slider("threshold", label, limits, format, setThreshold);
  const initial = auto === null ? DEFAULT_THRESHOLD : Number(auto.toFixed(2));
  const radio = (value, text, threshold) =>
    choice("radio", "similarity", value, text, () => setThreshold(threshold));
  const radios = {
    any: radio("any", "Any", null),
    ...(auto === null ? {} : { auto: radio("auto", `Auto (${auto.toFixed(2)})`, "auto") }),
    custom: radio("custom", "At least", initial),
  };
  updaters.push(({ threshold }) => {
    const kind = threshold === null ? "any" : threshold === "auto" ? "auto" : "custom";
    if (radios[kind]) radios[kind].querySelector("input").checked = true;
    input.disabled = kind !== "custom";
    input.value = kind === "custom" ? threshold : initial;
    output.textContent = kind === "custom" ? format(input.value) : "";
  });
  const choices = el("div", { className: "choices inline" }, ...Object.values(radios));
  return group("Similarity", "search-only", choices, row);
}

function choice(type, name, value, label, onChange, note = null) {
  const input = el("input", { type, name, value });
  input.addEventListener("change", onChange);
  return el(
    "label",
    { className: "choice", title: label },
    input,
    el("span", {}, label),
    note && " ",
    note && el("small", {}, note),
  );
}

/** Checkboxes of {name, images}; `selectedIn(state)` gives the checked names. */
function checkboxes(legend, values, selectedIn, onChange) {
  const change = () => onChange([...list.querySelectorAll(":checked")].map((box) => box.value));
  const checkbox = ({ name, images }) => {
    const label = name === "." ? "(top folder)" : name;
    return choice("checkbox", legend, name, label, change, images?.toLocaleString("en"));
  };
  const list = el("div", { className: "choices" }, ...values.map(checkbox));
  updaters.push((current) => {
    const selected = new Set(selectedIn(current));
    for (const box of list.querySelectorAll("input")) box.checked = selected.has(box.value);
  });
  return group(legend, "", values.length > LONG_LIST ? listSearch(legend, list) : "", list);
}

function listSearch(legend, list) {
  const field = el("input", {
    type: "search",
    placeholder: "Search the list",
    "aria-label": `Search the list: ${legend}`,
  });
  field.addEventListener("input", () => {
    for (const label of list.children)
      label.hidden = !label.title.toLowerCase().includes(field.value.toLowerCase());
  });
  return field;
}

function folderFilter(all) {
  if (all.length <= 1) return "";
  const onChange = (folders) => update({ folders }, "folder");
  const nested = treeOf(all);
  if (nested.every(({ children }) => !children.length))
    return checkboxes("Folder", all, ({ folders }) => folders, onChange);
  const { node, show } = folderTree(nested, onChange);
  updaters.push(({ folders }) => show(folders));
  return group("Folder", "", node);
}

/** Checkboxes for a text column with few values, a text field for one with many. */
function valueFilter({ name, values, counts }) {
  if (!values.length) return textFilter(name, `${readable(name)} contains`);
  return checkboxes(
    readable(name),
    values.map((value, i) => ({ name: value, images: counts[i] })),
    ({ columns }) => columns[name]?.is ?? [],
    (is) => setColumn(name, is.length ? { is } : null),
  );
}

function textFilter(name, legend) {
  const field = el("input", { type: "search", "aria-label": legend, placeholder: "any" });
  const change = () => setColumn(name, field.value.trim() ? { has: field.value.trim() } : null);
  const changeSoon = debounce(change, TYPING_MS);
  field.addEventListener("input", changeSoon);
  field.addEventListener("change", () => (changeSoon.cancel(), change()));
  updaters.push(({ columns }) => {
    if (document.activeElement !== field) field.value = columns[name]?.has ?? "";
  });
  return group(legend, "", field);
}

function rangeFilter({ name, min, max }) {
  const { node, show } = rangeSlider({ name, min, max }, (range) => setColumn(name, range));
  updaters.push(({ columns }) => show(columns[name]));
  return group(readable(name), "", node);
}

function setColumn(name, condition) {
  const { [name]: _, ...others } = state().columns;
  update({ columns: condition ? { ...others, [name]: condition } : others }, `column ${name}`);
}

/** [text, the change that removes it] of each filter in use. */
function activeFilters(current) {
  const { threshold } = current;
  const least = threshold === "auto" ? "Similar enough (automatic)" : `Similarity from ${threshold}`;
  const similarity = hasThreshold(current) ? [[least, { threshold: null }]] : [];
  const { collection } = current;
  const collected =
    collection === null ? [] : [[`Collection: ${collection}`, { collection: null }]];
  const folders = current.folders.map((name) => [
    name.endsWith("/") ? `${name.slice(0, -1)} and the folders in it` : name,
    { folders: current.folders.filter((each) => each !== name) },
  ]);
  const others = Object.entries(current.columns).map(([name, condition]) => {
    const { [name]: _, ...columns } = current.columns;
    return [`${readable(name)}: ${describe(condition)}`, { columns }];
  });
  return [...similarity, ...collected, ...folders, ...others];
}

function describe({ from, to, is, has }) {
  if (is) return is.join(", ");
  if (has) return `“${has}”`;
  if (from === undefined) return `up to ${to}`;
  return to === undefined ? `from ${from}` : `${from} to ${to}`;
}

function chip([text, change]) {
  const properties = {
    type: "button",
    className: "chip",
    "aria-label": `Remove the filter ${text}`,
    onclick: () => update(change),
  };
  return el("li", {}, el("button", properties, el("span", {}, text), icon("close")));
}
