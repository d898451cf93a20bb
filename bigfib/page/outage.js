/** Report that the service does not answer, and ask again until it does. */

import { button } from "./dom.js";
import { say } from "./notice.js";

const FIRST_PAUSE_MS = 500;

/** Longest time between two attempts. */
export const LONGEST_PAUSE_MS = 15_000;

const ASKS_AGAIN = "This page asks again by itself, and continues when the service is back.";

export class Outage {
  #place;
  #back;
  #retry;
  #pause = 0;
  #title = "";
  #timer;

  /**
   * @param place where to report that the service is away
   * @param back where to report that it is back
   * @param retry is called when it is time to ask again
   */
  constructor(place, back, retry) {
    this.#place = place;
    this.#back = back;
    this.#retry = retry;
    /** The position from which a change was sent whose answer was lost, or null. */
    this.unsure = null;
  }

  get isNow() {
    return this.#pause > 0;
  }

  begin(title, detail = ASKS_AGAIN) {
    this.#pause = Math.min(this.#pause * 2 || FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#retry, this.#pause);
    this.#back.textContent = "";
    if (this.#title !== title) {
      this.#title = title;
      say(this.#place, title, detail, this.#tryNow());
    }
    document.body.classList.add("is-away");
  }

  /** Report that something was not sent. */
  refuse() {
    say(
      this.#place,
      `Not sent. ${this.#title}`,
      "This page asks again by itself. Repeat your step when the service is back.",
      this.#tryNow(),
    );
    this.#place.scrollIntoView({ block: "nearest" });
  }

  /** Note that the service answers, and return `unsure`. */
  end() {
    if (!this.isNow) {
      return null;
    }
    clearTimeout(this.#timer);
    this.#pause = 0;
    this.#title = "";
    this.#place.replaceChildren();
    document.body.classList.remove("is-away");
    const { unsure } = this;
    this.unsure = null;
    if (unsure === null) {
      this.#back.textContent = "The service is back.";
    }
    return unsure;
  }

  #tryNow() {
    return button("Try now", this.#retry);
  }
}
