/* Forms with a button that requests a passkey from the browser: data-passkey is the ceremony (add, authenticate,
   login), data-options its challenge. allauth's webauthn.js does the work; this adds the button and error messages. */
document.addEventListener("DOMContentLoaded", () => {
  for (const form of document.querySelectorAll("form[data-passkey]")) {
    const button = form.querySelector("[data-passkey-button]");
    const note = form.querySelector("[data-passkey-note]");
    if (!window.webauthnJSON?.supported()) {
      note.textContent = "This browser does not support passkeys at this address. They need https (or localhost).";
      note.hidden = form.dataset.passkey === "login";
      continue;
    }
    button.hidden = false;
    const ids = { credential: form.elements.credential.id, passwordless: form.elements.passwordless?.id };
    for (const name of ["add", "authenticate", "login"]) ids[name] = button.id;
    window.allauth.webauthn.forms[`${form.dataset.passkey}Form`]({ ids, data: JSON.parse(form.dataset.options || "null") });
    button.addEventListener("click", () => { note.hidden = true; });
    // Enter in a field clicks the button, because the form needs the browser's response.
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      event.stopPropagation();
      button.click();
    });
    document.addEventListener("allauth.error", (event) => {
      event.preventDefault();
      note.textContent = SAID[event.detail.exception?.name] || SAID.other;
      note.hidden = false;
    });
  }
});

const SAID = {
  InvalidStateError: "This device already has a passkey for your account.",
  SecurityError: "Passkeys need https and a host name (or localhost); an IP address does not work.",
  other: "No passkey was used. Try again, or use another way.",
};
