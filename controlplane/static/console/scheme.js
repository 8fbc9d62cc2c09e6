// Light or dark, on a page that stands outside the console's frame: as the person chose there, else as the system is.
"use strict";

(() => {
  let chosen = null;
  try {
    chosen = JSON.parse(localStorage.getItem("adminTheme"));
  } catch {
    // No storage, or another's text in it: the system's.
  }
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.classList.toggle("dark", chosen === "dark" || (chosen !== "light" && dark));
})();
