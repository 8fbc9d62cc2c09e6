/* Small helpers of the console. Without scripts, every page works with links and forms. */
"use strict";

/* The theme's script writes the name of a chosen file into the first text field near it. Here that is another field: a
   backtest was sent with a sweep called "tasks.csv". The script skips inputs that claim to have a listener. */
HTMLInputElement.prototype.hasChangeListener = true;

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  const text = source.value ?? source.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // No clipboard access (plain HTTP): select the text, so that one keypress copies it.
    if (source.select) source.select();
    else getSelection().selectAllChildren(source);
  }
});

// A draft that was saved as a version is no longer a draft.
document.addEventListener("DOMContentLoaded", () => {
  for (const saved of document.querySelectorAll("[data-draft-saved]")) localStorage.removeItem(`pointsman.draft.${saved.dataset.draftSaved}`);
});

/* Forms are sent by script, so that an unreachable server, a lost session or a refusal never loses the input: the form
   stays, with a message on top. Without scripts they are ordinary posts. */
/* After signing in again in another tab, a form's own token is outdated; the cookie has the new one. */
const csrfToken = () => document.cookie.match(/(?:^|; )csrftoken=([^;]+)/)?.[1];

const SILENT_AFTER_MS = 10_000;
const GIVE_UP_AFTER_MS = 120_000;

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.method !== "post" || form.dataset.plain !== undefined || !form.closest("main.pm-page")) return;
  event.preventDefault();
  const button = event.submitter;
  const body = new FormData(form, button);
  if (csrfToken()) body.set("csrfmiddlewaretoken", csrfToken());
  const address = button?.getAttribute("formaction") || form.getAttribute("action") || location.href;
  form.setAttribute("aria-busy", "true");
  if (button) button.disabled = true;
  // A server that does not answer has not refused anything: say so early, but keep waiting, because a backtest takes
  // its time.
  // The button stays disabled until the page has gone: the second click of a double click would send the form again.
  let leaving = false;
  const leave = (to) => { leaving = true; location.assign(to); };
  const silent = setTimeout(() => say(form, "The server has not answered yet. It may still act on this form: look at the page again before you send it twice. Nothing that you typed is lost."), SILENT_AFTER_MS);
  try {
    const answer = await fetch(address, { method: "POST", body, headers: { "X-Pointsman-Form": "1" }, signal: AbortSignal.timeout(GIVE_UP_AFTER_MS) });
    clearTimeout(silent);
    form.querySelector(":scope > [data-said]")?.remove();
    const to = answer.headers.get("X-Pointsman-Location");
    if (to) return leave(to);
    if (answer.redirected && answer.ok) return leave(answer.url);
    if (answer.status === 401 || answer.headers.has("X-Pointsman-Stale-Form")) return say(form, "You are signed out. Sign in in a new tab, then send this form again: nothing is lost.", "Sign in", "/console/login/");
    if (answer.status >= 500) throw new Error(`the server answered ${answer.status}`);
    if (!(answer.headers.get("Content-Type") || "").includes("text/html")) return keep(answer);
    show(form, address, answer, await answer.text());
  } catch (error) {
    say(form, error.name === "TimeoutError"
      ? "The server did not answer. It may have acted on this form: look at the page again before you send it twice. Nothing that you typed is lost."
      // A TypeError is the network's; its text differs from browser to browser.
      : `The form could not be sent: ${error instanceof TypeError ? "the server cannot be reached" : error.message}. Nothing that you typed is lost: send it again.`);
  } finally {
    clearTimeout(silent);
    if (!leaving) {
      form.removeAttribute("aria-busy");
      if (button) button.disabled = false;
    }
  }
});

// Back to a page that the browser kept, with its button still disabled.
addEventListener("pageshow", (event) => event.persisted && document.querySelector("form[aria-busy]") && location.reload());

function noteOf(text, link, address) {
  const note = document.createElement("p");
  note.className = "pm-note pm-bad";
  note.setAttribute("role", "alert");
  note.textContent = text;
  if (link) note.append(" ", Object.assign(document.createElement("a"), { href: address, target: "_blank", textContent: link }));
  return note;
}

function say(form, text, link, address) {
  form.querySelector(":scope > [data-said]")?.remove();
  const note = noteOf(text, link, address);
  note.dataset.said = "";
  form.prepend(note);
  note.scrollIntoView({ block: "nearest" });
}

/* A poll or a check found that the person is signed out. Reload, which leads to the login page, unless that would lose
   something typed: then say so, and return true. `signedIn` removes the note after a login in another tab. */
function signedOut() {
  const typed = document.querySelector("main form[data-refused]") || [...document.querySelectorAll("main :is(input, textarea, select)")].some(isChanged);
  if (!typed) {
    location.reload();
    return false;
  }
  if (!document.querySelector("[data-signed-out]")) {
    const note = noteOf("You are signed out. Sign in in a new tab: what you typed stays here.", "Sign in", "/console/login/");
    note.classList.add("pm-stale");
    note.dataset.signedOut = "";
    document.querySelector("main").prepend(note);
  }
  return true;
}

function signedIn() {
  document.querySelector("[data-signed-out]")?.remove();
}

function isChanged(field) {
  if (field.type === "hidden") return false;
  if (field.type === "checkbox" || field.type === "radio") return field.checked !== field.defaultChecked;
  if (field.tagName !== "SELECT") return field.value !== field.defaultValue;
  const initial = [...field.options].findIndex((option) => option.defaultSelected);
  return !field.multiple && field.selectedIndex !== Math.max(initial, 0);
}

document.addEventListener("htmx:beforeOnLoad", (event) => {
  if (event.detail.xhr.getResponseHeader("HX-Refresh") && signedOut()) event.preventDefault();
});

/* A refused form comes back with its errors and replaces the one on the page. Any other page (a key shown once, a
   refusal) replaces the whole content. */
function show(form, address, answer, text) {
  const page = new DOMParser().parseFromString(text, "text/html");
  const path = new URL(address, location.href).pathname;
  const same = [...page.querySelectorAll("main form")].find((each) => new URL(each.getAttribute("action") || answer.url, location.href).pathname === path);
  const inSheet = form.closest("#sheet");
  const [old, next] = inSheet && same ? [form, same] : [document.querySelector("main.pm-page"), page.querySelector("main.pm-page")];
  if (!old || !next) return document.location.reload();
  old.replaceWith(next);
  htmx.process(next);
  // What was typed is the default value of a refused form, so it no longer counts as changed.
  for (const each of [next, ...next.querySelectorAll("form")])
    if (each.matches("form") && each.querySelector('[role="alert"], .errorlist')) each.dataset.refused = "";
  if (!inSheet) document.title = page.title;
  next.querySelector('[role="alert"], .errorlist, h1')?.scrollIntoView({ block: "nearest" });
  const wrong = next.querySelector('[aria-invalid="true"]');
  if (wrong) wrong.focus();
  dispatchEvent(new CustomEvent("pm:shown"));
}

async function keep(answer) {
  const name = (answer.headers.get("Content-Disposition") || "").match(/filename="?([^";]+)/)?.[1] || "download";
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(await answer.blob()), download: name });
  link.click();
}

document.addEventListener("htmx:configRequest", (event) => {
  event.detail.timeout = event.detail.verb === "get" ? SILENT_AFTER_MS : GIVE_UP_AFTER_MS;
  if (event.detail.verb === "post" && csrfToken()) event.detail.parameters.csrfmiddlewaretoken = csrfToken();
});

// When htmx cannot fetch something (an action's form, a check), show a message in its place, with a plain
// link.
for (const failure of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) {
  document.addEventListener(failure, (event) => {
    const target = event.detail.target;
    if (!target) return;
    const note = document.createElement("p");
    note.className = "pm-note pm-bad";
    note.setAttribute("role", "alert");
    note.textContent = "This could not be loaded from the server. ";
    const link = event.detail.elt?.getAttribute?.("href");
    if (link) note.append(Object.assign(document.createElement("a"), { href: link, textContent: "Open it as a page" }));
    else if (event.detail.elt?.matches?.("form")) note.append("Nothing that you typed is lost: send it again.");
    else if (/load|toggle/.test(event.detail.elt?.getAttribute?.("hx-trigger") || "")) note.append("Reload the page to try again.");
    else note.append("It is tried again with your next change.");
    target.replaceChildren(note);
  });
}

/* Let people scroll a wide table with the keyboard. */
function reach(root) {
  for (const box of root.querySelectorAll(".pm-scroll")) {
    if (box.scrollWidth > box.clientWidth) {
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", "A wide table: scroll it sideways");
    }
  }
}
addEventListener("DOMContentLoaded", () => reach(document));
addEventListener("resize", () => reach(document));
document.addEventListener("pm:swapped", (event) => reach(event.target));
addEventListener("pm:shown", () => reach(document));

/* Shows times in the reader's time zone, with UTC as a tooltip; keeps "3 min ago" counting, by the server's clock. */
(() => {
  const UNITS = [[86_400, "day"], [3_600, "h"], [60, "min"], [1, "s"]];
  const loaded = Date.now();
  const main = document.getElementsByTagName("main");
  const now = () => Number(main[0]?.dataset.now || loaded / 1000) + (Date.now() - loaded) / 1000;

  function ago(seconds) {
    if (Math.abs(seconds) < 2) return "just now";
    const [size, word] = UNITS.find(([size]) => Math.abs(seconds) >= size) || UNITS.at(-1);
    const number = Math.floor(Math.abs(seconds) / size);
    const text = `${number}\u202f${word === "day" && number !== 1 ? "days" : word}`;
    return seconds < 0 ? `in ${text}` : `${text} ago`;
  }

  function tell() {
    for (const time of document.querySelectorAll("time[data-ago]")) {
      const text = ago(now() - Date.parse(time.dateTime) / 1000);
      if (time.textContent !== text) time.textContent = text;
    }
    for (const time of document.querySelectorAll("time[data-local]:not([data-told])")) {
      time.textContent = new Date(time.dateTime).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
      time.dataset.told = "";
    }
  }
  addEventListener("DOMContentLoaded", () => {
    tell();
    setInterval(tell, 1000);
  });
  document.addEventListener("pm:swapped", tell);
})();
