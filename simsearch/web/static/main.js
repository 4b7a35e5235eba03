// Ties the page together: hears what is asked, asks the server, and shows the answer or what went
// wrong. A newer question always ends an older one.

import * as api from "./api.js";
import { byId, plural, say, title } from "./dom.js";
import * as grid from "./grid.js";
import * as heat from "./heat.js";
import { complain, listen } from "./intake.js";
import { follow, met, remember } from "./known.js";
import { action, banner, hide, message } from "./notice.js";
import * as query from "./query.js";
import { conditions, question } from "./question.js";
import * as refine from "./refine.js";
import { asking, filtering, from, go, keep, state, tasting, uploaded, watch } from "./state.js";
import * as taste from "./taste.js";

const FAULTS = {
  404: "There is no such picture",
  413: "That is too large",
  422: "That cannot be searched with",
  503: "The server is busy",
};
const CUT_OFF = "The server is there, and its answer does not arrive. Try another picture.";
const PATIENCE = 4; // times that an answer may be lost
const PAGE = 60; // pictures of the library that are loaded at once

let library = null;
let job = new AbortController(); // of the question that is being answered
let browsed = null; // {key, total, count} of the library's grid
let loading = false;
let scrolled = 0; // of the library's grid, for the way back
let lost = 0; // answers that did not arrive, one after another
let next = null; // which card takes the focus after a like

// Start, and follow the state

async function start() {
  try {
    library = await api.library(renew());
  } catch (error) {
    return fail(error, start);
  }
  settle();
  changed(state(), null);
}

function settle() {
  byId("size").textContent = plural(library.images, "picture");
  byId("address").hidden = !library.urls;
  byId("heat").hidden = !library.explains;
  document.body.classList.toggle("mapless", !library.explains);
  refine.build(library);
  refine.show(state());
}

function changed(now, before) {
  if (!library) return;
  const asked = asking(now);
  if (before && !asking(before)) scrolled = scrollY;
  document.body.dataset.mode = asked ? "asked" : "start";
  for (const name of ["unique", "heat"]) byId(name).setAttribute("aria-pressed", String(now[name]));
  byId("choosing").textContent = asked ? "Another picture" : "Choose a picture";
  refine.show(now);
  taste.show(now, (row) => ({
    thumbnail: thumbnailOf(row),
    name: met(row) ? title(met(row)) : `picture ${row}`,
  }));
  complain(null);
  if (before && asked && sameBut("heat", now, before))
    return heat.all(byId("matches").children, now.heat);
  if (!asked) return browse(before && asking(before));
  if (!before || keyOf(now) !== keyOf(before)) {
    scrollTo(0, 0);
    if (before) byId("heading").focus({ preventScroll: true });
  }
  ask();
}

const thumbnailOf = (row) =>
  `/api/images/${row}/thumbnail?v=${encodeURIComponent(library.version)}`;
const keyOf = ({ row, upload, url }) => JSON.stringify([row, upload, url]);

function sameBut(name, one, other) {
  return (
    one[name] !== other[name] &&
    JSON.stringify({ ...one, [name]: 0 }) === JSON.stringify({ ...other, [name]: 0 })
  );
}

function renew() {
  job.abort();
  job = new AbortController();
  hide("banner");
  return job.signal;
}

// Browse the library

function browse(returning) {
  const signal = renew();
  const where = conditions(state());
  const key = JSON.stringify([library.version, where]);
  document.title = "simsearch";
  query.show(null, null);
  display("library");
  if (browsed?.key !== key || browsed.total === null) {
    browsed = { key, where, total: null, count: 0 };
    byId("library").replaceChildren(...grid.skeletons(12));
    loading = false;
    more(signal);
  } else {
    told();
    if (inSight) more(signal);
  }
  if (returning) scrollTo(0, scrolled);
}

async function more(signal = job.signal) {
  if (loading || !browsed || browsed.count === browsed.total || asking()) return;
  loading = true;
  const mine = browsed;
  try {
    const page = await api.images({ offset: mine.count, limit: PAGE, where: mine.where }, signal);
    if (page.version !== library.version) throw new api.Problem("The library has changed.", 409);
    append(mine, page);
  } catch (error) {
    return fail(error, () => browse(false));
  } finally {
    if (mine === browsed) loading = false;
  }
  if (inSight) more();
}

function append(mine, { total, images }) {
  if (!mine.count) byId("library").replaceChildren();
  lost = 0;
  mine.total = total;
  mine.count = images.length ? mine.count + images.length : total;
  byId("library").append(...images.map(shown));
  told();
}

function shown(image) {
  return grid.card(remember(image), state());
}

function told() {
  byId("heading").textContent = filtering() ? plural(browsed.total, "picture") : "Library";
  byId("note").textContent = filtering()
    ? `of ${library.images.toLocaleString("en")}`
    : "Click one to find its like";
  byId("more").hidden = browsed.count === browsed.total;
  if (browsed.total) return say(plural(browsed.total, "picture"));
  message("No such pictures", "No picture of the library meets these filters.", loosenings());
}

let inSight = false;
new IntersectionObserver(
  ([{ isIntersecting }]) => {
    inSight = isIntersecting;
    if (inSight) more();
  },
  { rootMargin: "600px" },
).observe(byId("more"));

// Ask

async function ask() {
  const signal = renew();
  const now = state();
  display("matches");
  const list = byId("matches");
  if (!list.children.length) list.replaceChildren(...grid.skeletons(Math.min(now.k, 12)));
  list.setAttribute("aria-busy", "true");
  try {
    if (!(await present(now, signal))) return;
    const fields = async () => (await question(now, library, query.original()))[1];
    const [kind, body] = await question(now, library, query.original());
    const { answers, milliseconds } = await api.ask(kind, body, signal, busy);
    heat.renew(fields);
    answer(answers[0], milliseconds, now);
  } catch (error) {
    fail(error, ask);
  }
}

/** Show the query; false where it cannot be asked from. */
async function present(now, signal) {
  if (now.upload !== null) return presentUpload(now);
  if (now.url !== null) {
    query.show(
      { key: keyOf(now), name: now.url, lost: "The server fetches this picture by its address." },
      null,
    );
    return true;
  }
  const image = met(now.row) ?? remember(await api.facts(now.row, library.version, signal));
  const shown = devicePixelRatio > 1.5 ? image.image : `${image.thumbnail}&size=512`;
  document.title = `${title(image)} – simsearch`;
  query.show(
    {
      key: `${keyOf(now)} ${image.image}`,
      source: shown,
      original: image.image,
      name: title(image),
    },
    now.box,
  );
  return true;
}

function presentUpload(now) {
  const file = uploaded(now.upload);
  const key = keyOf(now);
  const name = file?.name || "Your picture";
  document.title = `${name} – simsearch`;
  if (file) {
    query.show({ key, name, source: file }, now.box);
    return true;
  }
  query.show({ key, name, lost: "This picture is gone." }, null);
  byId("matches").removeAttribute("aria-busy");
  byId("matches").replaceChildren();
  byId("heading").textContent = "Choose it again";
  byId("note").textContent = "";
  message(
    "Your picture is no longer here",
    "A picture of yours is kept only as long as the page is open, and is never stored. Choose it again to go on.",
    [chooseAgain()],
  );
  return false;
}

const busy = (seconds) =>
  (byId("note").textContent = `The server is busy; asking again in ${seconds} s`);

function answer({ matches, exact }, milliseconds, now) {
  const list = byId("matches");
  lost = 0;
  list.removeAttribute("aria-busy");
  list.replaceChildren(...matches.map(shown));
  const words = plural(matches.length, "match", "matches");
  byId("heading").textContent = words;
  byId("note").textContent = [
    tasting(now) ? "by your taste" : now.box ? "for the part" : "",
    `${milliseconds.toFixed(0)} ms`,
    exact ? "" : "approximate",
  ]
    .filter(Boolean)
    .join(" · ");
  say(words);
  if (state().heat) heat.all(list.children, true);
  if (!matches.length)
    message(
      "No matches",
      "Nothing in the library is like that under these conditions. Ask for less:",
      loosenings(),
    );
  refocus(list);
}

/** A liked match leaves the grid: the focus goes to the one that takes its place. */
function refocus(list) {
  if (next === null) return;
  const card = list.children[Math.min(next.place, list.children.length - 1)];
  (card?.querySelector(`[data-act=${next.what}]`) ?? byId("heading")).focus({
    preventScroll: true,
  });
  next = null;
}

// What went wrong, and what to do

function display(name) {
  for (const each of ["library", "matches"]) byId(each).hidden = each !== name;
  hide("more", "message");
}

const chooseAgain = () => action("Choose a picture", () => byId("choose").click());

function loosenings() {
  const now = state();
  return [
    now.threshold !== null && asking(now)
      ? action("Take any likeness", () => go({ threshold: null }))
      : null,
    filtering(now) ? action("Clear filters", refine.clear) : null,
    now.box ? action("Use the whole picture", () => go({ box: null })) : null,
    tasting(now) ? action("Forget likes and dislikes", taste.forget) : null,
  ];
}

function fail(error, again) {
  if (api.aborted(error)) return undefined;
  if (error.status === 0) return wait(again);
  if (error.status === 409) return reload(again);
  if (!(error instanceof api.Problem)) console.error(error); // a fault of this page
  if (error.status === 404) query.show(null, null);
  if (!asking()) browsed = null;
  const list = byId(asking() ? "matches" : "library");
  list.removeAttribute("aria-busy");
  list.replaceChildren();
  byId("heading").textContent = "No answer";
  byId("note").textContent = "";
  const actions = [
    error.status >= 500 ? action("Try again", again) : null,
    asking() ? chooseAgain() : null,
    asking() ? action("Back to the library", home) : null,
    filtering() ? action("Clear filters", refine.clear) : null,
  ];
  const words = error.message.charAt(0).toUpperCase() + error.message.slice(1);
  return message(FAULTS[error.status] ?? "The server could not answer", words, actions, "alert");
}

/** The server does not answer: say so, and go on by itself once it does. */
async function wait(again) {
  lost += 1;
  if (lost > PATIENCE) return fail(new api.Problem(CUT_OFF, 502), again);
  const signal = job.signal;
  banner(
    "The server does not answer. This page goes on by itself once it is back.",
    action("Try now", again),
  );
  try {
    await api.recovered(signal);
  } catch {
    return; // something else was asked meanwhile
  }
  hide("banner");
  say("The server is back.");
  if (document.querySelector("#library .gone")) browsed = null;
  reload(again);
}

/** Read the library anew; rows of before are found again by their paths. */
async function reload(again) {
  const before = library;
  const signal = job.signal;
  try {
    library = await api.library(signal);
    settle();
    if (!before) changed(state(), null);
    else if (before.version !== library.version) await relocate(signal);
    else again();
  } catch (error) {
    fail(error, () => reload(again));
  }
}

async function relocate(signal) {
  const now = state();
  const query = now.row === null ? [] : [now.row];
  const [[row = null], liked, disliked] = await follow([query, now.liked, now.disliked], signal);
  browsed = null;
  go({ row, liked, disliked }, "relocate");
  if (query.length && row === null)
    complain("The library has changed, and that picture is no longer in it.");
}

// What people do

const home = () => go({ row: null, upload: null, url: null, box: null, liked: [], disliked: [] });

function act(what, row, card) {
  if (what === "search") from({ row });
  else if (what === "why") heat.turn(card, !heat.isOn(card));
  else {
    next = { what, place: [...card.parentNode.children].indexOf(card) };
    taste.mark(state(), `${what}d`, row);
  }
}

function escape(event) {
  if (event.key !== "Escape" || event.defaultPrevented) return;
  if (!byId("panel").hidden) refine.open(false);
  else if (state().box) go({ box: null });
  else if (asking()) home();
}

function take({ file, url }) {
  complain(null);
  from(file ? { upload: keep(file) } : { url });
}

watch(changed);
history.scrollRestoration = "manual";
query.onBox((box) => go({ box }, box && state().box ? "box" : null));
listen(take, () => library);
for (const id of ["library", "matches"]) grid.listen(byId(id), act);
for (const name of ["unique", "heat"])
  byId(name).addEventListener("click", () => go({ [name]: !state()[name] }, name));
byId("refine").addEventListener("click", () => refine.open(byId("panel").hidden));
byId("panel").addEventListener("submit", (event) => event.preventDefault());
byId("more").addEventListener("click", () => more());
byId("home").addEventListener("click", (event) => {
  event.preventDefault();
  home();
});
addEventListener("keydown", escape);
start();
