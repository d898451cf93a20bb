/** Report errors and the progress of computations on the page. */

import { button, element } from "./dom.js";

/** Show a message in `place`, an alert, with buttons for remedies. */
export function say(place, title, detail, ...buttons) {
  place.replaceChildren(element("strong", {}, title), element("p", {}, detail), ...buttons);
}

/** Report that an action failed; the message stays until it is closed, or until the next action. */
export function complain(place, title, detail, ...buttons) {
  say(place, title, detail, ...buttons, button("Close", () => place.replaceChildren(), "plain"));
  // With keyboard shortcuts, another part of the page may be in view.
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
      job.state === "queued" ? "waits in the queue" : `${Math.floor(job.progress * 100)} %`;
  }

  end() {
    this.#shown.remove();
  }
}
