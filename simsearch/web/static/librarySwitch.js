// Switch between the libraries of a server that has several, each at ../NAME/.

import { byId, el } from "./dom.js";

/** Show the switch; `view` is the address of this page below a library. */
export function showSwitch({ name, libraries }, view = "") {
  const list = byId("libraries");
  list.replaceChildren(...libraries.map((each) => el("option", { selected: each === name }, each)));
  list.hidden = libraries.length < 2;
  list.onchange = () => location.assign(`../${encodeURIComponent(list.value)}/${view}`);
}
