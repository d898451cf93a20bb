/**
 * Keyboard shortcuts, outside of fields.
 *
 * They can be turned off: speech input and some assistive technology send single keys (WCAG 2.1.4).
 */

const OFF = "bigfib.keys-off";

const at = (id) => document.getElementById(id);

const ACTIONS = {
  ArrowRight: () => at("next").click(),
  ArrowLeft: () => at("previous").click(),
  g: () => focus(at("target")),
  "/": () => focus(at("n")),
  c: () => at("current").querySelector(".copy").click(),
  "?": () => at("keys").showModal(),
};

function focus(field) {
  field.focus();
  field.select();
}

addEventListener("keydown", (event) => {
  const action = ACTIONS[event.key];
  const isElsewhere = event.target.closest("input, textarea, select, dialog, [tabindex]");
  if (!action || isElsewhere || event.ctrlKey || event.metaKey || event.altKey) {
    return;
  }
  if (at("use-keys").checked) {
    event.preventDefault();
    action();
  }
});

at("show-keys").addEventListener("click", () => at("keys").showModal());
at("close-keys").addEventListener("click", () => at("keys").close());

// If the browser is set to store nothing, the choice lasts as long as the page is open.
try {
  at("use-keys").checked = localStorage.getItem(OFF) === null;
} catch {
  // See above.
}
at("use-keys").addEventListener("change", () => {
  try {
    if (at("use-keys").checked) {
      localStorage.removeItem(OFF);
    } else {
      localStorage.setItem(OFF, "");
    }
  } catch {
    // See above.
  }
});
