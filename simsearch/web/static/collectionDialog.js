// The dialog that adds pictures to a collection, and opens or removes one.

import * as collections from "./collections.js";
import { announce, button, byId, el, plural } from "./dom.js";
import { clearQuery, update } from "./state.js";

/** Open the dialog for images that may be added; without any it lists the collections. */
export function open(images) {
  const dialog = byId("collections");
  render(images);
  if (!dialog.open) dialog.showModal();
}

export function listen() {
  byId("open-collections").addEventListener("click", () => open([]));
  byId("collections").addEventListener("click", (event) => {
    if (event.target === byId("collections")) byId("collections").close();
  });
  byId("collections").addEventListener("keydown", (event) => {
    if (event.key === "Escape") event.stopPropagation(); // it closes the dialog, not the search
  });
}

function render(images) {
  const names = collections.names();
  const text = images.length
    ? `Add ${plural(images.length, "picture")} to a collection.`
    : "Collections are kept in this browser alone.";
  byId("collections").replaceChildren(
    el("h2", { id: "collections-heading" }, "Collections"),
    el("p", {}, text),
    el("ul", { className: "collection-list" }, ...names.map((name) => entry(name, images))),
    names.length || images.length ? "" : el("p", {}, "There are no collections yet. To make one, select pictures first."),
    images.length ? newCollection(images) : "",
    el("p", { className: "error", id: "collection-error", role: "alert", hidden: true }),
    button("Close", { onclick: () => byId("collections").close() }),
  );
}

function entry(name, images) {
  const count = collections.paths(name)?.length ?? 0;
  const add = button("Add", { "aria-label": `Add to ${name}`, onclick: () => addTo(name, images) });
  const show = button("Show", { "aria-label": `Show ${name}`, onclick: () => openCollection(name) });
  const remove = button("Remove", {
    "aria-label": `Remove ${name}`,
    onclick: () => {
      collections.remove(name);
      render(images);
    },
  });
  return el(
    "li",
    {},
    el("bdi", {}, name),
    el("small", {}, plural(count, "picture")),
    images.length ? add : null,
    show,
    images.length ? null : remove,
  );
}

function newCollection(images) {
  const field = el("input", {
    type: "text",
    required: true,
    maxLength: 60,
    placeholder: "New collection",
    "aria-label": "Name of a new collection",
  });
  const submit = (event) => {
    event.preventDefault();
    addTo(field.value.trim(), images);
  };
  return el(
    "form",
    { className: "new-collection", onsubmit: submit },
    field,
    el("button", { type: "submit", className: "button primary" }, "Create"),
  );
}

function addTo(name, images) {
  if (!name) return;
  const error = collections.add(name, images.map(({ path }) => path));
  byId("collection-error").textContent = error ?? "";
  byId("collection-error").hidden = !error;
  if (error) return;
  byId("collections").close();
  announce(`Added to ${name}: ${plural(images.length, "picture")}`);
}

function openCollection(name) {
  byId("collections").close();
  clearQuery();
  update({ collection: name });
}
