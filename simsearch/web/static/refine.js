// Settings and filters: a panel built from what the library says of itself, and chips for what is
// in use. Changes what is asked; asks nothing.

import { byId, el, icon, later } from "./dom.js";
import { filtering, go, state } from "./state.js";

const MANY = 12; // boxes in a list that gets a field to narrow it
const LEAST = 0.5; // cosine, where there is no better guess

let reflections = []; // each makes a control show what is asked

/** Build the panel for a library. */
export function build(library) {
  reflections = [];
  const columns = library.columns.filter((column) => column.name !== "path");
  byId("panel").replaceChildren(
    amount(library),
    likeness(library),
    folders(library.folders),
    ...columns.map((column) => (column.kind === "number" ? range(column) : words(column))),
    written("path", "File name contains"),
    el(
      "p",
      {},
      el(
        "button",
        { type: "button", className: "button", id: "clear", onclick: clear },
        "Clear filters",
      ),
    ),
  );
}

/** Make the panel, the chips and the count show a state. */
export function show(now) {
  for (const reflect of reflections) reflect(now);
  const used = inUse(now);
  byId("clear").disabled = !used.length;
  byId("refined").hidden = !used.length;
  byId("refined").textContent = used.length;
  byId("chips").hidden = !used.length;
  byId("chips").replaceChildren(...used.map(chip));
}

export const clear = () => go({ folder: [], columns: {} });

/** Open or close the panel; the focus goes with it. */
export function open(on) {
  byId("panel").hidden = !on;
  byId("refine").setAttribute("aria-expanded", String(on));
  (on ? byId("panel").querySelector("input:not(:disabled)") : byId("refine"))?.focus();
}

function group(legend, className, ...children) {
  return el("fieldset", { className }, el("legend", {}, legend), ...children);
}

function amount({ matches, images }) {
  const most = Math.max(1, Math.min(matches, images));
  const output = el("output", { for: "k" });
  const slider = el("input", {
    type: "range",
    id: "k",
    min: 1,
    max: most,
    "aria-label": "How many matches",
  });
  slider.addEventListener("input", () => (output.textContent = slider.value));
  slider.addEventListener("change", () => go({ k: Number(slider.value) }, "k"));
  reflections.push(({ k }) => {
    slider.value = k;
    output.textContent = slider.value;
  });
  return group("Matches", "asked", el("div", { className: "slide" }, slider, output));
}

function likeness({ auto_threshold: auto }) {
  const output = el("output", { for: "threshold" });
  const slider = el("input", {
    type: "range",
    id: "threshold",
    min: 0,
    max: 1,
    step: 0.01,
    "aria-label": "Least cosine",
  });
  const first = auto === null ? LEAST : Number(auto.toFixed(2));
  const choices = { any: null, auto: "auto", own: first };
  const choice = (value, label) =>
    choiceOf("radio", "likeness", value, label, () =>
      go({ threshold: choices[value] }, "threshold"),
    );
  const radios = {
    any: choice("any", "Any"),
    ...(auto === null ? {} : { auto: choice("auto", `Auto (${auto.toFixed(2)})`) }),
    own: choice("own", "At least"),
  };
  slider.addEventListener("input", () => (output.textContent = Number(slider.value).toFixed(2)));
  slider.addEventListener("change", () => go({ threshold: Number(slider.value) }, "threshold"));
  reflections.push(({ threshold }) => {
    const kind = threshold === null ? "any" : threshold === "auto" ? "auto" : "own";
    if (radios[kind]) radios[kind].querySelector("input").checked = true;
    slider.disabled = kind !== "own";
    slider.value = kind === "own" ? threshold : first;
    output.textContent = kind === "own" ? Number(slider.value).toFixed(2) : "";
  });
  return group(
    "Likeness",
    "asked",
    el("div", { className: "choices inline" }, ...Object.values(radios)),
    el("div", { className: "slide" }, slider, output),
  );
}

function choiceOf(type, name, value, label, change, note = null) {
  const box = el("input", { type, name, value });
  box.addEventListener("change", change);
  return el(
    "label",
    { className: "choice", title: label },
    box,
    el("span", {}, label),
    note && " ",
    note && el("small", {}, note),
  );
}

function boxes(legend, values, chosen, choose) {
  const change = () => choose([...list.querySelectorAll(":checked")].map((box) => box.value));
  const list = el(
    "div",
    { className: "choices" },
    ...values.map(({ name, images }) =>
      choiceOf(
        "checkbox",
        legend,
        name,
        name === "." ? "(top folder)" : name,
        change,
        images?.toLocaleString("en"),
      ),
    ),
  );
  reflections.push((now) => {
    const on = new Set(chosen(now));
    for (const box of list.querySelectorAll("input")) box.checked = on.has(box.value);
  });
  return group(legend, "", values.length > MANY ? narrower(legend, list) : "", list);
}

function narrower(legend, list) {
  const field = el("input", {
    type: "search",
    placeholder: "Narrow the list",
    "aria-label": `Narrow the list: ${legend}`,
  });
  field.addEventListener("input", () => {
    for (const label of list.children)
      label.hidden = !label.title.toLowerCase().includes(field.value.toLowerCase());
  });
  return field;
}

const folders = (all) =>
  all.length > 1
    ? boxes(
        "Folder",
        all,
        ({ folder }) => folder,
        (folder) => go({ folder }, "folder"),
      )
    : "";

function words({ name, values }) {
  if (!values.length) return written(name, `${name} contains`);
  return boxes(
    name,
    values.map((value) => ({ name: value })),
    ({ columns }) => columns[name]?.is ?? [],
    (is) => column(name, is.length ? { is } : null),
  );
}

function written(name, legend) {
  const field = el("input", { type: "search", "aria-label": legend, placeholder: "any" });
  const change = () => column(name, field.value.trim() ? { has: field.value.trim() } : null);
  const soon = later(change, 400);
  field.addEventListener("input", soon);
  field.addEventListener("change", () => (soon.cancel(), change()));
  reflections.push(({ columns }) => {
    if (document.activeElement !== field) field.value = columns[name]?.has ?? "";
  });
  return group(legend, "", field);
}

function range({ name, min, max }) {
  const ends = ["from", "to"].map((end) =>
    el("input", {
      type: "number",
      step: "any",
      placeholder: end === "from" ? min : max,
      "aria-label": `${name} ${end}`,
    }),
  );
  const change = () => {
    const [from, to] = ends.map((field) => (field.value === "" ? undefined : field.valueAsNumber));
    const given = { ...(from === undefined ? {} : { from }), ...(to === undefined ? {} : { to }) };
    column(name, Object.keys(given).length ? given : null);
  };
  for (const field of ends) field.addEventListener("change", change);
  reflections.push(({ columns }) => {
    ends[0].value = columns[name]?.from ?? "";
    ends[1].value = columns[name]?.to ?? "";
  });
  return group(
    name,
    "",
    el(
      "div",
      { className: "range" },
      ends[0],
      el("span", { "aria-hidden": "true" }, "to"),
      ends[1],
    ),
  );
}

function column(name, condition) {
  const { [name]: _, ...others } = state().columns;
  go({ columns: condition ? { ...others, [name]: condition } : others }, `column ${name}`);
}

/** [words, the change that takes it back] of each filter in use. */
function inUse(now) {
  if (!filtering(now)) return [];
  const folders = now.folder.map((name) => [
    name,
    { folder: now.folder.filter((each) => each !== name) },
  ]);
  const others = Object.entries(now.columns).map(([name, condition]) => {
    const { [name]: _, ...columns } = now.columns;
    return [`${name}: ${inWords(condition)}`, { columns }];
  });
  return [...folders, ...others];
}

function inWords({ from, to, is, has }) {
  if (is) return is.join(", ");
  if (has) return `“${has}”`;
  if (from === undefined) return `up to ${to}`;
  return to === undefined ? `from ${from}` : `${from} to ${to}`;
}

function chip([words, change]) {
  return el(
    "li",
    {},
    el(
      "button",
      {
        type: "button",
        className: "chip",
        "aria-label": `Remove the filter ${words}`,
        onclick: () => go(change),
      },
      el("span", {}, words),
      icon("close"),
    ),
  );
}
