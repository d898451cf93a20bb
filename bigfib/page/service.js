/**
 * Send requests to the service, and return its answers; throw its problems, or that it is lost.
 *
 * Numbers are strings here, too, because JavaScript's Number is too small.
 */

import { grouped } from "./numbers.js";

// Timeouts of the beginning of an answer, and of its end.
const BEGIN_MS = 10_000;
const END_MS = 120_000;

// Time between two polls of a computation, at least and at most: it says how long it still takes.
const LEAST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 1000;

// Titles for people, instead of the names of HTTP statuses.
const TITLES = {
  409: "The sequence starts at F(0)",
  413: "That is too long",
  414: "That is too long",
  422: "That is not possible",
  500: "The service has failed",
  503: "The service cannot do that now",
  507: "The service is full",
};

/** The service has refused a request, and says why (RFC 9457). */
export class Problem extends Error {
  constructor(status, { title, detail, neighbours }, headers) {
    super(detail);
    this.status = status;
    this.neighbours = neighbours; // The indices next to a value that no term has.
    this.title = TITLES[status] ?? title;
    // Group numbers as everywhere on the page, except those in a path.
    this.detail = detail.replace(/(?<![\w/.])\d{4,}(?!\w)/g, (number) => grouped(number, Infinity));
    this.headers = headers;
  }

  /** The path of the computation that the request waits for, or null. */
  get monitor() {
    return this.#link("monitor");
  }

  /** The path of a resource to show instead, or null. */
  get related() {
    return this.#link("related");
  }

  #link(relation) {
    const found = /<([^>]*)>; rel="([a-z]+)"/.exec(this.headers.get("Link") ?? "");
    return found?.[2] === relation ? found[1] : null;
  }
}

/** The answer is lost, at least in part: it is unknown whether a change was made. */
export class Lost extends Error {}

/** Return whether the error only means that the request was cancelled. */
export const isAborted = (error) => error.name === "AbortError";

/**
 * Send a request, and read the whole answer.
 *
 * @returns status, headers, body (of the type `read`: "text", "json" or "blob") and the milliseconds
 *   that it took.
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

/** Return the milliseconds from sending the request to the end of the answer, or null if unknown. */
function sinceRequest(url, began) {
  const timing = performance.getEntriesByName(url).at(-1);
  // Browsers stop recording after a few hundred requests, until the records are cleared.
  performance.clearResourceTimings();
  const isOfThis = timing?.startTime >= began && timing.requestStart;
  return isOfThis ? timing.responseEnd - timing.requestStart : null;
}

async function problem(answer) {
  if (answer.headers.get("Content-Type") === "application/problem+json") {
    return new Problem(answer.status, await answer.json(), answer.headers);
  }
  // The answer is from a proxy; 5xx means that the proxy cannot reach the service.
  if (answer.status >= 500) {
    throw new Lost(`a proxy answers ${answer.status}`);
  }
  const title = answer.status === 429 ? "Too Many Requests" : `Status ${answer.status}`;
  const detail = "A proxy in front of the service refuses this for now. Try again later.";
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

/** Return the milliseconds of each phase that the service reports (`Prefer: timing`). */
export function phases(headers) {
  const found = (headers.get("Server-Timing") ?? "").matchAll(/(\w+);dur=([\d.]+)/g);
  return [...found].map(([, name, ms]) => `${name} ${Number(ms).toFixed(2)}`).join(", ");
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
