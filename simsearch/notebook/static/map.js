// The widget of a map. Python sends the places of the pictures, and thumbnails when they are asked
// for; the browser sends which rows are chosen.

import { button, el, plural } from "../../web/static/dom.js";
import { MapCanvas } from "../../web/static/mapCanvas.js";

const HINT =
  "Drag: move. Wheel: zoom. “Draw around”, then a line: choose the pictures in it. Click: choose one.";
const MOST_SHOWN = 48; // of the chosen pictures
const ZOOM = 1.6;

export default { render };

function render({ model, el: root }) {
  const places = model.get("places");
  const pictures = new Pictures(model);
  const parts = build();
  root.append(parts.top);
  const choose = (indices) => {
    model.set("rows", indices.map((i) => places.rows[i]));
    model.save_changes();
    setLasso(false);
  };
  const setLasso = (on) => {
    map.drawing = on;
    parts.lasso.setAttribute("aria-pressed", String(on));
    parts.canvas.classList.toggle("drawing", on);
  };
  const hide = () => (parts.card.hidden = true);
  const hover = (i, at) => (i < 0 ? hide() : showCard(parts, places.rows[i], at, pictures));
  const map = new MapCanvas(parts.canvas, {
    pictureOf: (row) => pictures.of(row).then(({ url }) => url),
    onMove: hide,
    onPick: (i) => choose([i]),
    onDrawn: choose,
    onHover: hover,
  });
  parts.lasso.addEventListener("click", () => setLasso(!map.drawing));
  parts.nearer.addEventListener("click", () => map.zoom(ZOOM));
  parts.farther.addEventListener("click", () => map.zoom(1 / ZOOM));
  parts.whole.addEventListener("click", () => map.showAll());
  parts.clear.addEventListener("click", () => choose([]));
  parts.canvas.addEventListener("keydown", ({ key }) => key === "Escape" && choose([]));
  parts.title.textContent = model.get("title");
  map.load(places, places.groups);
  const indexOf = new Map(places.rows.map((row, i) => [row, i]));
  const showChosen = () => {
    const rows = model.get("rows");
    map.choose(rows.filter((row) => indexOf.has(row)).map((row) => indexOf.get(row)));
    parts.status.textContent = rows.length ? `${plural(rows.length, "picture")} chosen` : "";
    parts.clear.hidden = !rows.length;
    parts.chosen.replaceChildren(...rows.slice(0, MOST_SHOWN).map((row) => entry(row, pictures)));
  };
  model.on("change:rows", showChosen);
  showChosen();
  return () => {
    model.off("change:rows", showChosen);
    pictures.stop();
  };
}

/** Thumbnails, asked for when they are first wanted: all that are wanted at a time together. */
class Pictures {
  #known = new Map(); // row: promise of {url, name, caption}
  #waiting = new Map(); // row: what resolves it

  constructor(model) {
    this.model = model;
    this.listener = ({ thumbnails = [] }) => thumbnails.forEach((each) => this.#take(each));
    model.on("msg:custom", this.listener);
  }

  stop() {
    this.model.off("msg:custom", this.listener);
  }

  of(row) {
    if (!this.#known.has(row)) {
      if (!this.#waiting.size) setTimeout(() => this.#ask());
      this.#known.set(row, new Promise((resolve) => this.#waiting.set(row, resolve)));
    }
    return this.#known.get(row);
  }

  #ask() {
    this.model.send({ thumbnails: [...this.#waiting.keys()] });
  }

  #take(picture) {
    this.#waiting.get(picture.row)?.(picture);
    this.#waiting.delete(picture.row);
  }
}

function build() {
  const small = (text, title) => button(text, { title, "aria-label": title });
  const canvas = el("canvas", { tabIndex: 0, "aria-label": "Map: similar pictures lie close together" });
  canvas.setAttribute("role", "application");
  const title = el("b");
  const status = el("span", { className: "status", role: "status" });
  const lasso = button("Draw around", { "aria-pressed": "false" });
  const [nearer, farther] = [small("+", "Zoom in"), small("−", "Zoom out")];
  const whole = button("Whole map", {});
  const clear = button("Clear", { hidden: true });
  const card = el("div", { className: "card", hidden: true });
  const chosen = el("ul", { className: "chosen", "aria-label": "Chosen pictures" });
  const top = el(
    "div",
    { className: "simsearch-map" },
    el("div", { className: "bar" }, title, lasso, nearer, farther, whole, clear, status),
    el("div", { className: "area" }, canvas, card),
    el("small", {}, HINT),
    chosen,
  );
  return { top, title, status, canvas, lasso, nearer, farther, whole, clear, card, chosen };
}

/** Show the picture under the pointer, on the side of it where there is room. */
async function showCard({ card, canvas }, row, [left, top], pictures) {
  card.dataset.row = row;
  const picture = await pictures.of(row);
  if (card.dataset.row !== String(row)) return; // the pointer is elsewhere by now
  card.replaceChildren(image(picture), el("bdi", {}, picture.caption || picture.name));
  card.hidden = false;
  const [wide, high] = [card.offsetWidth, card.offsetHeight];
  card.style.left = `${left + 16 + wide < canvas.clientWidth ? left + 16 : Math.max(0, left - 16 - wide)}px`;
  card.style.top = `${Math.max(0, Math.min(top, canvas.clientHeight - high))}px`;
}

const image = ({ url, name }) =>
  url ? el("img", { src: url, alt: name }) : el("span", {}, "cannot be shown");

function entry(row, pictures) {
  const item = el("li", {});
  pictures.of(row).then((picture) => {
    item.title = picture.name;
    item.replaceChildren(image(picture));
  });
  return item;
}
