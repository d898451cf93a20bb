/**
 * Send requests to the service, and read its answers, or its problems, or that there is no answer.
 *
 * Its numbers are strings here, too: they have no ceiling, and Number has one.
 */

import { grouped } from "./numbers.js";

// Timeouts of the beginning of an answer, and of its end.
const BEGIN_MS = 10_000;
const END_MS = 120_000;

// Time between two polls of a computation, at least and at most: it says how long it still takes.
const LEAST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 1000;

// For people; HTTP's own names are for programs.
const TITLES = {
  409: "It does not go that far back",
  413: "That is too long",
  414: "That is too long",
  422: "That cannot be done",
  500: "The service has failed",
  503: "The service cannot do that now",
  507: "The service is full",
};

/** The service has refused a request, and says why (RFC 9457). */
export class Problem extends Error {
  constructor(status, { title, detail, neighbours }, headers) {
    super(detail);
    this.status = status;
    this.neighbours = neighbours; // Of a value that no term has.
    this.title = TITLES[status] ?? title;
    // Group its numbers as all others on the page, but not those in a path.
    this.detail = detail.replace(/(?<![\w/.])\d{4,}(?!\w)/g, (number) => grouped(number, Infinity));
    this.headers = headers;
  }

  /** The computation that this waits for, if it does. */
  get monitor() {
    return this.#link("monitor");
  }

  /** What can be had instead, if anything. */
  get related() {
    return this.#link("related");
  }

  #link(relation) {
    const found = /<([^>]*)>; rel="([a-z]+)"/.exec(this.headers.get("Link") ?? "");
    return found?.[2] === relation ? found[1] : null;
  }
}

/** There is no answer, or only a part of it: it is unknown whether a change was made. */
export class Lost extends Error {}

/** Return whether the error only means that the request was cancelled. */
export const isAborted = (error) => error.name === "AbortError";

/**
 * Send a request, and read the whole answer.
 *
 * @returns status, headers, body (as `read` has it: "text", "json" or "blob") and the milliseconds
 *   it took.
 * @throws {Problem} of a status from 400 on
 * @throws {Lost}
 */
export async function ask(method, path, { headers, body, read = "text", signal } = {}) {
  const timeout = new AbortController();
  let timer = setTimeout(() => timeout.abort(), BEGIN_MS);
  const signals = signal ? [timeout.signal, signal] : [timeout.signal];
  const began = performance.now();
  try {
    const answer = await fetch(path, { method, headers, body, signal: AbortSignal.any(signals) });
    clearTimeout(timer);
    timer = setTimeout(() => timeout.abort(), END_MS);
    if (answer.status >= 400) {
      throw await problem(answer);
    }
    const content = answer.status === 304 ? null : await answer[read]();
    const ms = sinceRequest(answer.url, began) ?? performance.now() - began;
    return { status: answer.status, headers: answer.headers, body: content, ms };
  } catch (error) {
    signal?.throwIfAborted();
    throw error instanceof Problem ? error : new Lost("no answer", { cause: error });
  } finally {
    clearTimeout(timer);
  }
}

/** Return the milliseconds that the answer took, without what the browser does before and after. */
function sinceRequest(url, began) {
  const timing = performance.getEntriesByName(url).at(-1);
  // Browsers record a few hundred requests, and then no more until these are cleared.
  performance.clearResourceTimings();
  const isOfThis = timing?.startTime >= began && timing.requestStart;
  return isOfThis ? timing.responseEnd - timing.requestStart : null;
}

async function problem(answer) {
  if (answer.headers.get("Content-Type") === "application/problem+json") {
    return new Problem(answer.status, await answer.json(), answer.headers);
  }
  // A proxy answers: with 5xx it cannot reach the service.
  if (answer.status >= 500) {
    throw new Lost(`a proxy answers ${answer.status}`);
  }
  const title = answer.status === 429 ? "Too Many Requests" : `Status ${answer.status}`;
  const detail = "A proxy before the service refuses this for now. Try again in a while.";
  return new Problem(answer.status, { title, detail }, answer.headers);
}

function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

export const retryAfter = (headers) => Number(headers.get("Retry-After") ?? 1);

/**
 * Poll a computation until the request that waits for it should be repeated.
 *
 * @param path the path of its document
 * @param seconds the longest time, from `Retry-After`
 * @param show is called with each document
 */
export async function watch(path, seconds, show, signal) {
  const end = performance.now() + seconds * 1000;
  let pause = LEAST_PAUSE_MS;
  while (performance.now() < end) {
    await sleep(pause, signal);
    try {
      const job = (await ask("GET", path, { read: "json", signal })).body;
      show(job);
      pause = Math.min(Math.max(job.seconds_left * 1000, LEAST_PAUSE_MS), LONGEST_PAUSE_MS);
      if (job.state === "failed" || job.state === "done") {
        return;
      }
    } catch (error) {
      if (error instanceof Problem && error.status === 404) {
        return; // It is done, or cancelled.
      }
      throw error;
    }
  }
}
