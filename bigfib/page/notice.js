/** Report on the page what went wrong, and how far a computation is. */

import { button, element } from "./dom.js";

/** Show a message in `place`, an alert, with buttons for what can be done about it. */
export function say(place, title, detail, ...buttons) {
  place.replaceChildren(element("strong", {}, title), element("p", {}, detail), ...buttons);
}

/** Show what came of somebody's action; it stays until it is closed, or until the next one. */
export function complain(place, title, detail, ...buttons) {
  say(place, title, detail, ...buttons, button("Close", () => place.replaceChildren(), "plain"));
  // Somebody who steps by keyboard may have scrolled to another part of the page.
  place.scrollIntoView({ block: "nearest" });
}

/** Show the progress of a computation, and a button to stop waiting for it. */
export class Work {
  #bar = element("progress", { max: 1 });
  #percent = element("span", { className: "percent" });
  #shown;

  constructor(place, name, label, stop) {
    this.#bar.setAttribute("aria-label", `Computing ${name}`);
    this.#shown = element(
      "div",
      { className: "work" },
      element("span", {}, `Computing ${name}`),
      this.#bar,
      this.#percent,
      button(label, stop, "plain"),
    );
    place.append(this.#shown);
  }

  /** Show the document of a computation. */
  show(job) {
    this.#bar.value = job.progress;
    this.#percent.textContent =
      job.state === "queued" ? "waits for others" : `${Math.floor(job.progress * 100)} %`;
  }

  end() {
    this.#shown.remove();
  }
}
