// The page that lists the libraries of a server: a card for each, with some of its pictures.

import * as api from "./api.js";
import { byId, el, plural } from "./dom.js";

const card = ({ name, images, covers, address }) =>
  el(
    "li",
    {},
    el(
      "a",
      { href: api.beside(address) },
      el(
        "div",
        { className: "covers", "aria-hidden": "true" },
        ...covers.map((source) => el("img", { src: api.beside(source), alt: "", loading: "lazy" })),
      ),
      el("bdi", { className: "shelf-name" }, name),
      el("span", { className: "shelf-size" }, plural(images, "picture")),
    ),
  );

async function show() {
  try {
    byId("libraries").replaceChildren(...(await api.libraries()).map(card));
  } catch (error) {
    byId("message").textContent = `${error.message} Reload this page to try again.`;
    byId("message").hidden = false;
  }
}

show();
