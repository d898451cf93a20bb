/** What the page says besides terms: what went wrong, and how far what takes long is. */

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export function button(label, onclick, className = "") {
  return element("button", { type: "button", className, onclick }, label);
}

/** Say something in `place`, an alert, with buttons to do about it what can be done. */
export function say(place, title, detail, ...buttons) {
  place.replaceChildren(element("strong", {}, title), element("p", {}, detail), ...buttons);
}

/** Say what went wrong; it stays until it is closed, or something else is done. */
export function complain(place, title, detail, ...buttons) {
  say(place, title, detail, ...buttons, button("Close", () => place.replaceChildren(), "plain"));
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
