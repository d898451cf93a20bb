/**
 * What is asked of the service, and what can come of it: an answer, a problem, or nothing at all.
 *
 * Numbers of the service are strings here, too: they have no ceiling, and Number has one.
 */

import { grouped } from "./numbers.js";

// Who has not begun to answer by then is taken to be away; a long body has longer.
const BEGIN_MS = 10_000;
const END_MS = 120_000;

// HTTP's own names of them are for programs.
const TITLES = {
  409: "It does not go that far back",
  413: "That is too long",
  414: "That is too long",
  422: "That cannot be done",
  500: "The service has failed",
  503: "The service cannot do that now",
  507: "The service is full",
};

/** The service has answered that it does not do this, and why (RFC 9457). */
export class Problem extends Error {
  constructor(status, { title, detail }, headers) {
    super(detail);
    this.status = status;
    this.title = TITLES[status] ?? title;
    // Numbers in it are grouped as all others on the page; what is part of a path is none.
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

/** There is no answer, or one that ends before its end: what became of a change is unknown. */
export class Lost extends Error {}

/** Somebody no longer wants what is under way. */
export const isAborted = (error) => error.name === "AbortError";

/**
 * Ask, and read the whole answer.
 *
 * @returns status, headers, body (as `read` has it: "text", "json" or "blob") and the milliseconds
 *   it took.
 * @throws {Problem} of a status from 400 on
 * @throws {Lost}
 */
export async function ask(method, path, { headers, body, read = "text", signal } = {}) {
  const patience = new AbortController();
  let timer = setTimeout(() => patience.abort(), BEGIN_MS);
  const signals = signal ? [patience.signal, signal] : [patience.signal];
  const began = performance.now();
  try {
    const answer = await fetch(path, { method, headers, body, signal: AbortSignal.any(signals) });
    clearTimeout(timer);
    timer = setTimeout(() => patience.abort(), END_MS);
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
  // The browser keeps a few hundred, and then no more.
  performance.clearResourceTimings();
  const isOfThis = timing?.startTime >= began && timing.requestStart;
  return isOfThis ? timing.responseEnd - timing.requestStart : null;
}

async function problem(answer) {
  if (answer.headers.get("Content-Type") === "application/problem+json") {
    return new Problem(answer.status, await answer.json(), answer.headers);
  }
  // A proxy says so: of 5xx, that there is nobody behind it.
  if (answer.status >= 500) {
    throw new Lost(`a proxy answers ${answer.status}`);
  }
  const title = answer.status === 429 ? "Too Many Requests" : `Status ${answer.status}`;
  const detail = "The way to the service is barred for now. Try again in a while.";
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
 * Watch a computation until what waits for it is worth asking for again.
 *
 * @param path where its document is
 * @param seconds as `Retry-After` says; it may be over before
 * @param show is given each document
 */
export async function watch(path, seconds, show, signal) {
  const end = performance.now() + seconds * 1000;
  for (let pause = 250; performance.now() < end; pause = 1000) {
    await sleep(pause, signal);
    try {
      const job = (await ask("GET", path, { read: "json", signal })).body;
      show(job);
      if (job.state === "failed" || job.state === "done") {
        return;
      }
    } catch (error) {
      if (error instanceof Problem && error.status === 404) {
        return; // Nothing computes it any more: it is done, or cancelled.
      }
      throw error;
    }
  }
}
