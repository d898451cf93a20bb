/** Copy to the clipboard. */

import { button, element } from "./dom.js";

const SHOWN_MS = 2000;

/**
 * Return a button that copies.
 *
 * @param text returns a promise of the text to copy
 * @param failed is called with the error if that promise is rejected
 */
export function copyButton(label, text, failed = () => {}) {
  const made = button(label, click, "plain copy");
  made.ariaLive = "polite";
  async function click() {
    let missing;
    made.setAttribute("aria-busy", "true");
    try {
      await copy(() =>
        text().catch((error) => {
          missing = error;
          throw error;
        }),
      );
      made.textContent = "Copied";
    } catch {
      made.textContent = "Not copied";
      if (missing) {
        failed(missing);
      }
    } finally {
      made.removeAttribute("aria-busy");
      setTimeout(() => {
        made.textContent = label;
      }, SHOWN_MS);
    }
  }
  return made;
}

async function copy(text) {
  if (navigator.clipboard) {
    // Safari accepts the item only shortly after the click; its text may come later.
    const blob = text().then((copied) => new Blob([copied], { type: "text/plain" }));
    await navigator.clipboard.write([new ClipboardItem({ "text/plain": blob })]);
    return;
  }
  // Over HTTP from another computer, browsers offer no other way.
  const focused = document.activeElement;
  const field = element("textarea", { value: await text(), className: "unseen" });
  document.body.append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  focused.focus();
  if (!isCopied) {
    throw new Error("the browser does not copy");
  }
}
