// Light or dark for pages outside the console's frame: as chosen in the console, otherwise as set in the
// system.
"use strict";

(() => {
  let chosen = null;
  try {
    chosen = JSON.parse(localStorage.getItem("adminTheme"));
  } catch {
    // No storage, or unexpected content: use the system's setting.
  }
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.classList.toggle("dark", chosen === "dark" || (chosen !== "light" && dark));
})();
