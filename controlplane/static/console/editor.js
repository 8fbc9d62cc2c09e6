/* The policy editor: problems in the gutter while typing, completion, and a draft that survives a reload.
   The text area behind it is posted; without scripts it is the editor. */
"use strict";

// Run after django-ace's own `load` handler, which creates the editor.
addEventListener("load", () => {
  const widget = document.querySelector(".django-ace-widget");
  if (!widget || !widget.editor) return;
  const { editor } = widget;
  const form = widget.closest("form");
  const words = JSON.parse(document.getElementById("editor-words").textContent);

  // Esc leaves the editor; otherwise Tab would be a trap.
  editor.setOption("enableKeyboardAccessibility", true);
  editor.session.setUseWorker(false); // before setting the mode, which would start one
  editor.session.setMode("ace/mode/yaml");
  editor.setOption("fontSize", "13px");
  editor.textInput.getElement().setAttribute("aria-label", "Policy document");
  const dark = () => document.documentElement.classList.contains("dark");
  const paint = () => editor.setTheme(`ace/theme/${dark() ? "github_dark" : "github"}`);
  paint();
  new MutationObserver(paint).observe(document.documentElement, { attributeFilter: ["class"] });

  // --- completion -----------------------------------------------------------------------------------
  editor.completers = [
    {
      identifierRegexps: [/[A-Za-z0-9_.\-/]/],
      getCompletions(_editor, session, _position, _prefix, found) {
        const own = [...session.getValue().matchAll(/^ {2}([A-Za-z0-9][\w.-]*):/gm)].map((match) => match[1]);
        const kinds = { ...words, "name in this policy": [...new Set(own)] };
        found(null, Object.entries(kinds).flatMap(([meta, values]) => values.map((value) => ({ value, meta, caption: value }))));
      },
    },
  ];

  // --- problems in the gutter -----------------------------------------------------------------------
  const annotate = () => {
    const rows = [...document.querySelectorAll("#checked [data-line]")].filter((row) => row.dataset.line);
    editor.session.setAnnotations(
      rows.map((row) => ({
        row: Number(row.dataset.line) - 1,
        column: Number(row.dataset.column || 1) - 1,
        type: row.dataset.severity,
        text: row.querySelector(".pm-ink").textContent,
      })),
    );
  };
  annotate();
  document.body.addEventListener("htmx:afterSwap", (event) => event.target.id === "checked" && annotate());
  document.getElementById("checked").addEventListener("click", (event) => {
    const row = event.target.closest("[data-line]");
    if (row && row.dataset.line) {
      editor.gotoLine(Number(row.dataset.line), Number(row.dataset.column || 1) - 1, true);
      editor.focus();
    }
  });

  // --- the draft ------------------------------------------------------------------------------------
  const key = `pointsman.draft.${form.dataset.draft}`;
  const began = editor.getValue();
  // The response to a post already contains the text.
  const posted = document.querySelector("#checked > *") !== null;
  const draft = localStorage.getItem(key);
  if (draft !== null && draft !== began && !posted) {
    editor.session.setValue(draft);
    form.querySelector("[data-restored]").hidden = false;
  }
  form.querySelector("[data-discard]").addEventListener("click", () => {
    editor.session.setValue(began);
    form.querySelector("[data-restored]").hidden = true;
    localStorage.removeItem(key);
  });
  editor.session.on("change", () => {
    localStorage.setItem(key, editor.getValue());
    htmx.trigger("#policy-editor", "typed");
  });
});
