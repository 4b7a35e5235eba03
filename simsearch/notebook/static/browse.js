// The widget: a grid of pictures, the query with its selected part, and a field for words.
// Draws the state that Python sends, and sends back what was done; searches nothing itself.

import { isSmall, pointOver, spanned } from "../../web/static/box.js";
import { listen } from "../../web/static/cardEvents.js";
import { caption, captionOf, el, plural, scoreText, titleOf } from "../../web/static/dom.js";

const HINT =
  "Click: search with it. Shift-click: more like it. Alt-click: less like it. Drag on the query: a part of it.";

export default { render };

function render({ model, el: root }) {
  const send = (action, values = {}) => model.send({ action, ...values });
  const parts = build(send);
  root.append(parts.top);
  const draw = () => update(parts, model.get("state"), send);
  model.on("change:state", draw);
  draw();
  return () => model.off("change:state", draw);
}

function build(send) {
  const words = el("input", { type: "search", placeholder: "words, such as: a street at night" });
  words.setAttribute("aria-label", "Search by words");
  const form = el(
    "form",
    {
      onsubmit: (event) => {
        event.preventDefault();
        send("text", { text: words.value });
      },
    },
    words,
    el("button", { type: "submit" }, "Search"),
  );
  const clear = el("button", { type: "button", onclick: () => send("clear") }, "All pictures");
  const more = el("button", { type: "button", onclick: () => send("more") }, "More");
  const status = el("p", { className: "status", role: "status" });
  const query = el("div", { className: "query" });
  const chosen = el("div", { className: "chosen" });
  const list = el("ul", { className: "cards" });
  list.setAttribute("aria-label", "Pictures");
  list.addEventListener("click", (event) => onModifiedClick(event, send), true);
  listen(list, (action, row) => send(action, { row }));
  const top = el(
    "div",
    { className: "simsearch-browse", title: "" },
    el("div", { className: "bar" }, form, clear),
    status,
    el("div", { className: "asked" }, query, chosen),
    list,
    el("div", { className: "bar" }, more, el("small", {}, HINT)),
  );
  return { top, words, clear, more, status, query, chosen, list };
}

/** Shift and Alt say whether a picture is liked; a plain click searches with it. */
function onModifiedClick(event, send) {
  const card = event.target.closest("[data-row]");
  if (!card || !(event.shiftKey || event.altKey)) return;
  event.preventDefault();
  event.stopPropagation();
  send(event.shiftKey ? "like" : "dislike", { row: Number(card.dataset.row) });
}

function update(parts, state, send) {
  parts.status.textContent = state.error || state.status;
  parts.status.classList.toggle("error", Boolean(state.error));
  if (document.activeElement !== parts.words) parts.words.value = state.text;
  parts.clear.hidden = !state.asked;
  parts.more.hidden = !state.more;
  parts.query.replaceChildren(...(state.query ? [queryPicture(state.query, send)] : []));
  parts.chosen.replaceChildren(
    ...chosenList("More like", "like", state.liked, send),
    ...chosenList("Less like", "dislike", state.disliked, send),
  );
  const focused = parts.list.contains(document.activeElement);
  parts.list.replaceChildren(...state.cards.map((image) => card(image, state)));
  if (focused) parts.list.querySelector(".picture")?.focus();
}

function card(image, state) {
  const name = titleOf(image);
  const pressed = (rows) => String(rows.some(({ row }) => row === image.row));
  const toggle = (action, sign, text, rows) =>
    el(
      "button",
      {
        type: "button",
        className: action,
        title: text,
        "data-action": action,
        "aria-label": `${text}: ${name}`,
        "aria-pressed": pressed(rows),
      },
      sign,
    );
  const picture = el(
    "button",
    {
      type: "button",
      className: "picture",
      "data-action": "query",
      "aria-label": `Search with ${name}`,
    },
    image.thumbnail
      ? el("img", { src: image.thumbnail, alt: "", draggable: false })
      : el("span", {}, "cannot be shown"),
  );
  const found = "score" in image;
  return el(
    "li",
    { className: "card", "data-row": image.row },
    picture,
    el(
      "span",
      { className: "actions" },
      toggle("like", "♥", "More like this", state.liked),
      toggle("dislike", "✕", "Less like this", state.disliked),
    ),
    found ? el("p", { className: "score", title: scoreText(image) }, image.score.toFixed(3)) : null,
    caption(...captionOf(image), name),
  );
}

/** The query; a part of it is drawn with the mouse or a finger. */
function queryPicture({ picture, name, box }, send) {
  const frame = el("div", { className: "crop-box", hidden: !box });
  const area = el("div", { className: "crop-area" });
  if (!picture) return el("figure", {}, el("p", { className: "words" }, name));
  area.append(el("img", { src: picture, alt: `Query: ${name}`, draggable: false }), frame);
  if (box) place(frame, box);
  area.addEventListener("pointerdown", (event) => onDrag(event, area, frame, box, send));
  const whole = el(
    "button",
    { type: "button", hidden: !box, onclick: () => send("box", { box: null }) },
    "Whole picture",
  );
  return el("figure", {}, area, caption(name, "", name), whole);
}

function place(frame, [left, top, right, bottom]) {
  const [l, t, w, h] = [left, top, right - left, bottom - top].map((edge) => `${100 * edge}%`);
  Object.assign(frame.style, { left: l, top: t, width: w, height: h });
  frame.hidden = false;
}

function onDrag(event, area, frame, before, send) {
  if (event.button !== 0) return;
  event.preventDefault();
  const start = pointOver(area, event);
  let box = null;
  const drag = new AbortController();
  const { signal } = drag;
  const end = (keep) => {
    drag.abort();
    if (keep && box && !isSmall(box)) send("box", { box });
    else if (before) place(frame, before);
    else frame.hidden = true;
  };
  area.setPointerCapture(event.pointerId);
  const move = (to) => place(frame, (box = spanned(start, pointOver(area, to))));
  area.addEventListener("pointermove", move, { signal });
  area.addEventListener("pointerup", () => end(true), { signal });
  area.addEventListener("pointercancel", () => end(false), { signal });
}

function chosenList(title, action, images, send) {
  if (!images.length) return [];
  const remove = (image) =>
    el(
      "button",
      {
        type: "button",
        title: `Remove ${titleOf(image)}`,
        "aria-label": `Remove from “${title}”: ${titleOf(image)}`,
        onclick: () => send(action, { row: image.row }),
      },
      image.thumbnail ? el("img", { src: image.thumbnail, alt: "" }) : "✕",
    );
  const heading = el("b", {}, `${title} ${plural(images.length, "picture")}`);
  return [el("div", { className: action }, heading, ...images.map(remove))];
}
