/* Keeps a page up to date without disturbing the reader: swaps only parts that changed, keeps focus, selection, scroll
   and open details, pauses while the page is hidden, and says when the server does not answer. See
   controlplane/web/live.py. */
"use strict";

(() => {
  const OLD_AFTER_S = 20;
  const note = document.createElement("p");
  note.className = "pm-note pm-warn pm-stale";
  note.setAttribute("role", "status");

  class Live {
    constructor(root) {
      this.root = root;
      this.every = Number(root.dataset.every || 2) * 1000;
      this.address = root.dataset.live || location.href;
      this.tag = root.dataset.tag || "";
      this.seen = Date.now();
      this.plan();
    }

    plan() {
      if (!this.ended) this.timer = setTimeout(() => this.ask(), this.every);
    }

    async ask() {
      clearTimeout(this.timer);
      if (document.hidden || this.ended) return; // `visibilitychange` asks again
      try {
        const headers = { "HX-Request": "true", "If-None-Match": this.tag };
        const answer = await fetch(this.address, { headers, cache: "no-store", signal: AbortSignal.timeout(10_000) });
        if (answer.headers.get("HX-Refresh")) {
          this.seen = Date.now();
          if (!signedOut()) return;
          throw new Error("signed out");
        }
        signedIn();
        if (answer.status !== 304 && !answer.ok) throw new Error(`status ${answer.status}`);
        if (answer.status !== 304) {
          const text = await answer.text();
          // A proxy's login page, or a page without rights, is not this page's news.
          if (!text.includes("data-part=")) throw new Error("another page");
          const complete = this.take(text);
          this.tag = complete ? answer.headers.get("ETag") || "" : "";
        }
        this.ended = answer.status === 286;
        this.seen = Date.now();
      } catch {
        // The message below appears once this has lasted; the next round tries again.
      }
      this.plan();
    }

    /* Swap the changed parts. Return false if one was skipped because the person is selecting text in it. */
    take(text) {
      const given = new DOMParser().parseFromString(text, "text/html");
      let complete = true;
      for (const next of given.querySelectorAll("[data-part]")) {
        const part = document.querySelector(`[data-part="${next.dataset.part}"]`);
        if (!part || part.dataset.tag === next.dataset.tag) continue;
        if (inSelection(part)) complete = false;
        else swap(part, next);
      }
      return complete;
    }
  }

  const inSelection = (part) => {
    const selection = getSelection();
    return !selection.isCollapsed && selection.rangeCount > 0 && selection.getRangeAt(0).intersectsNode(part);
  };

  const place = (element) => {
    if (element.id) return `#${CSS.escape(element.id)}`;
    if (element.getAttribute("href")) return `a[href="${CSS.escape(element.getAttribute("href"))}"]`;
    return element.tagName === "SUMMARY" ? "summary" : null;
  };

  function swap(part, next) {
    const active = part.contains(document.activeElement) ? document.activeElement : null;
    const focus = active && place(active);
    const typed = active && "value" in active ? [active.value, active.selectionStart, active.selectionEnd] : null;
    const folds = [...part.querySelectorAll("details")].map((fold) => fold.open);
    const scrolls = [...part.querySelectorAll(".pm-scroll, .pm-stages")].map((box) => [box.scrollLeft, box.scrollTop]);
    part.replaceChildren(...next.childNodes);
    part.dataset.tag = next.dataset.tag;
    part.querySelectorAll("details").forEach((fold, at) => at in folds && (fold.open = folds[at]));
    part.querySelectorAll(".pm-scroll, .pm-stages").forEach((box, at) => at in scrolls && ([box.scrollLeft, box.scrollTop] = scrolls[at]));
    const again = focus && part.querySelector(focus);
    if (again) {
      again.focus({ preventScroll: true });
      if (typed && "value" in again) {
        again.value = typed[0];
        if (typed[1] !== null && again.setSelectionRange) again.setSelectionRange(typed[1], typed[2]);
      }
    } else if (active) {
      // The focused element is gone (a button of another state): stay near it, not at the top of the page.
      part.tabIndex = -1;
      part.focus({ preventScroll: true });
    }
    htmx.process(part);
    part.dispatchEvent(new CustomEvent("pm:swapped", { bubbles: true }));
  }

  addEventListener("DOMContentLoaded", () => {
    const lives = [...document.querySelectorAll("[data-live]")].map((root) => new Live(root));
    if (!lives.length) return;
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return;
      for (const live of lives) {
        // Nobody asked while the page was hidden, so its age is no sign of a silent server: give the answer 3 s.
        live.seen = Math.max(live.seen, Date.now() - live.every - (OLD_AFTER_S - 3) * 1000);
        live.ask();
      }
    });
    addEventListener("online", () => lives.forEach((live) => live.ask()));
    const main = document.querySelector("main");
    setInterval(() => {
      const waiting = lives.filter((live) => !live.ended);
      const age = Math.max(0, ...waiting.map((live) => Date.now() - live.seen - live.every)) / 1000;
      if (document.hidden || age < OLD_AFTER_S) return note.remove();
      note.textContent = `Not updated for ${Math.round(age)} s: the server does not answer, or another page answers in its place. What you see may be old; reload the page to see why.`;
      if (!note.isConnected) main.prepend(note);
    }, 1000);
  });
})();
