// The map of the library: similar pictures lie close together. Moves, zooms, and chooses pictures
// by drawing around them, to search with them.

import * as api from "./api.js";
import { announce, button, byId, debounce, el, plural } from "./dom.js";
import { thumbnail } from "./grid.js";
import { showSwitch } from "./librarySwitch.js";
import { COLORS, MapCanvas } from "./mapCanvas.js";
import { actionButton, showMessage } from "./messages.js";

const NEAR = 12; // pictures beside the map
const MOST_CHOSEN = 48; // that are listed
const MOST_LIKED = 30; // that are searched with at once
const SETTLE_MS = 200;

let map = null; // the answer of the server
let canvas = null;
let chosen = null; // indices within the drawn line
let method = "pca";

const pictureOf = (row) => `api/images/${row}/thumbnail?v=${encodeURIComponent(map.version)}`;
const small = (row) => `${pictureOf(row)}&size=128`;
const searchAddress = (rows) =>
  rows.length > 1 ? `./?liked=${rows.slice(0, MOST_LIKED).join(",")}&likes=1` : `./?row=${rows[0]}`;

async function show() {
  byId("message").hidden = true;
  byId("method").disabled = true;
  byId("note").textContent = "Drawing the map…";
  try {
    const [library, drawn] = await Promise.all([api.library(), api.map(method)]);
    map = drawn;
    showSwitch(library, "map");
  } catch (error) {
    byId("map-body").hidden = true;
    byId("note").textContent = "";
    const text = error.message.charAt(0).toUpperCase() + error.message.slice(1);
    return showMessage("The map cannot be drawn", text, [actionButton("Try again", show)], "alert");
  } finally {
    byId("method").disabled = false;
  }
  const some = map.rows.length < map.total;
  byId("note").textContent =
    plural(map.rows.length, "picture") + (some ? ` of ${map.total.toLocaleString("en")}, drawn at random` : "");
  byId("map-body").hidden = false;
  showLegend();
  chosen = null;
  canvas ??= new MapCanvas(byId("map"), { pictureOf: small, onMove: nearSoon, onPick, onDrawn });
  canvas.load(map);
  showNear();
  announce(byId("note").textContent);
}

function showLegend() {
  const entries = map.groups.map((name, i) => {
    const dot = el("i");
    dot.style.background = COLORS[i];
    return el("li", {}, dot, el("bdi", {}, name === "." || !name ? "(top folder)" : name));
  });
  const others = map.group.includes(-1) ? [el("li", {}, el("i"), "others")] : [];
  byId("map-legend").replaceChildren(...entries, ...others);
  byId("map-legend").hidden = entries.length < 2;
}

const nearSoon = debounce(showNear, SETTLE_MS);

/** List what was drawn around, or what lies nearest to the middle. */
function showNear() {
  const indices = chosen ?? canvas.nearest(NEAR);
  const rows = indices.map((i) => map.rows[i]);
  byId("near-heading").textContent = chosen ? `${plural(rows.length, "picture")} selected` : "In the middle of the map";
  const actions = chosen
    ? [
        rows.length ? el("a", { className: "button primary", href: searchAddress(rows) }, "Find similar") : "",
        button("Clear", { onclick: () => onDrawn(null) }),
      ]
    : [];
  byId("near-actions").replaceChildren(...actions);
  byId("near-actions").hidden = !actions.length;
  byId("near").replaceChildren(...rows.slice(0, MOST_CHOSEN).map(entry));
}

const entry = (row) =>
  el(
    "li",
    {},
    el(
      "a",
      { href: searchAddress([row]), "aria-label": `Search with picture ${row}`, title: "Search with this picture" },
      thumbnail({ thumbnail: pictureOf(row) }),
    ),
  );

const onPick = (i) => location.assign(searchAddress([map.rows[i]]));

/** Pictures were drawn around; null clears them. */
function onDrawn(indices) {
  chosen = indices;
  canvas.choose(indices ?? []);
  setLasso(false);
  showNear();
  if (indices) announce(`${plural(indices.length, "picture")} selected`);
}

function setLasso(on) {
  byId("lasso").setAttribute("aria-pressed", String(on));
  canvas.drawing = on;
  byId("map").classList.toggle("drawing", on);
}

byId("lasso").addEventListener("click", () => canvas && setLasso(!canvas.drawing));
byId("zoom-in").addEventListener("click", () => canvas.zoom(1.6));
byId("zoom-out").addEventListener("click", () => canvas.zoom(1 / 1.6));
byId("zoom-all").addEventListener("click", () => canvas.showAll());
byId("method").addEventListener("click", () => {
  method = method === "pca" ? "tsne" : "pca";
  byId("method").setAttribute("aria-pressed", String(method === "tsne"));
  show();
});
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !canvas) return;
  if (canvas.drawing) setLasso(false);
  else if (chosen) onDrawn(null);
});
show();
