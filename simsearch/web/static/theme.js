// Light or dark: as the system says, until the button is pressed; the choice stays in this browser.
// A plain script, run before the page is painted.
"use strict";
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const store = (use) => {
    try {
      return use(localStorage);
    } catch {
      return null; // storage is off: the choice lasts as long as the page
    }
  };
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const chosen = store((storage) => storage.getItem("theme"));
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;

  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    if (!button) return;
    const show = () => button.setAttribute("aria-pressed", String(dark()));
    button.addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      store((storage) => storage.setItem("theme", root.dataset.theme));
      show();
    });
    system.addEventListener("change", show);
    show();
  });
})();
