// Clicks and keys on a list of cards: arrows move between them, letters press their buttons.

const ARROWS = { ArrowLeft: -1, ArrowRight: 1 };
const SHORTCUTS = { l: "like", d: "dislike", w: "explain", i: "detail", x: "select" };

/** Call `onAction(action, row, card, event)` for each card action in a list, by mouse or keyboard. */
export function listen(list, onAction) {
  list.addEventListener("click", (event) => {
    const target = event.target.closest("[data-action]");
    const selects = target?.dataset.action === "select";
    if (!target || event.ctrlKey || event.metaKey || (event.shiftKey && !selects)) return; // a new tab
    event.preventDefault();
    const row = Number(target.closest("[data-row]").dataset.row);
    onAction(target.dataset.action, row, target.closest(".card"), event);
  });
  list.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !event.target.matches(".picture")) return;
    const from = event.target.closest(".card");
    const action = SHORTCUTS[event.key];
    const pressed = action && from.querySelector(`[data-action=${action}]`);
    const to = neighbour(list, from, event.key);
    to?.querySelector(".picture")?.focus();
    pressed?.click();
    if (to || pressed) event.preventDefault();
  });
}

function neighbour(list, card, key) {
  const cards = [...list.querySelectorAll(".card")];
  const index = cards.indexOf(card);
  const steps = { ...ARROWS, Home: -index, End: cards.length - 1 - index };
  if (key === "ArrowUp") return nearest(cards.slice(0, index).reverse(), card);
  if (key === "ArrowDown") return nearest(cards.slice(index + 1), card);
  return key in steps ? cards[index + steps[key]] : null;
}

/** Of the next line of cards, the one that is nearest to a card from left to right. */
function nearest(cards, card) {
  const place = (each) => each.getBoundingClientRect();
  const { top, left } = place(card);
  const start = cards.findIndex((each) => place(each).top !== top);
  if (start < 0) return undefined;
  const line = place(cards[start]).top;
  const end = cards.findIndex((each, i) => i > start && place(each).top !== line);
  const away = (each) => Math.abs(place(each).left - left);
  const onLine = cards.slice(start, end < 0 ? undefined : end);
  return onLine.sort((a, b) => away(a) - away(b))[0];
}
