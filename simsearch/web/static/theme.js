// Light or dark theme: the system's, until the button is pressed; the browser keeps the choice.
// A classic script, so that it runs before the first paint.
"use strict";
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const withStorage = (use) => {
    try {
      return use(localStorage);
    } catch {
      return null; // storage is disabled: the choice lasts until the page closes
    }
  };
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const chosen = withStorage((storage) => storage.getItem("theme"));
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
  const mark = () => root.classList.toggle("dark-mode", dark()); // what Swagger UI goes by
  system.addEventListener("change", mark);
  mark();

  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    if (!button) return;
    const show = () => button.setAttribute("aria-pressed", String(dark()));
    button.addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      withStorage((storage) => storage.setItem("theme", root.dataset.theme));
      mark();
      show();
    });
    system.addEventListener("change", show);
    show();
  });
})();
