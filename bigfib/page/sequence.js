/**
 * Step a sequence: the shared one, or a private one.
 *
 * If the answer to a change is lost, the page never repeats the change, because it may have been made.
 * It reports this, asks until the service is back, and shows the position. A step of a private
 * sequence is made only from the position that is shown (`If-Match`); a step of the shared sequence
 * from the position to which other clients have moved it by then.
 */

import { Chart, milliseconds } from "./chart.js";
import { button } from "./dom.js";
import { Work, complain, say } from "./notice.js";
import { grouped, read, requireNumber } from "./numbers.js";
import { LONGEST_PAUSE_MS, Outage } from "./outage.js";
import { SHARED, forget, named, randomId, remember, remembered } from "./private.js";
import { Lost, Problem, ask, isAborted, phases, retryAfter, watch } from "./service.js";
import { TermView, parts } from "./term.js";

// If a click has no result after this time, the controls show that it is being handled.
const UNNOTICED_MS = 300;

// How often to check whether others have stepped the sequence: at most every second, and in at most
// a twentieth of the time.
const LOOK_MS = 1000;
const LOOKS_SHARE = 20;

const at = (id) => document.getElementById(id);
const chart = new Chart(at("chart"));
const view = new TermView(at("current"), (error) => report(error));
const outage = new Outage(at("away"), at("back"), () => enqueue(look));

let id = SHARED;
let position = null; // None is shown yet.
let tag = null; // The ETag of what is shown.
let lookTimer;
let lookTook = 0;
let stop = new AbortController();
let queue = Promise.resolve();
let chosen = null; // The id of a private sequence whose creation was sent.
let dropped = 0; // How many actions were not done.
let asked = 0; // How many actions are not done yet.
let busyTimer;

/** Run an action after all earlier ones. */
function enqueue(action) {
  queue = queue.then(action).catch(reportError);
}

// --- Which one -----------------------------------------------------------------------------------

const address = () => `/api1/sequences/${id}`;

function open() {
  stop.abort();
  stop = new AbortController();
  id = named();
  position = tag = null;
  const isShared = id === SHARED;
  at("shared").ariaPressed = String(isShared);
  at("own").ariaPressed = String(!isShared);
  at("everyone").hidden = !isShared;
  at("keep").hidden = isShared;
  // These are about the sequence that was shown before.
  at("removal").close();
  at("problem").replaceChildren();
  outage.unsure = null;
  chart.clear();
  unknown();
  enqueue(look);
}

function goTo(which) {
  const page = location.pathname + location.search;
  history.pushState(null, "", which === SHARED ? page : `#${which}`);
  open();
}

function openOwn() {
  stopWaiting();
  if (remembered()) {
    goTo(remembered());
    return;
  }
  const before = dropped;
  const create = async (signal) => {
    // Two clicks create one.
    if (!remembered()) {
      await createOwn();
    }
    signal.throwIfAborted();
    goTo(remembered());
    if (dropped !== before) {
      sayNotDone();
    }
  };
  attempt(create, () => {});
}

/** Create a private sequence; if the answer is lost, the next attempt creates the same one. */
async function createOwn() {
  chosen ??= randomId();
  try {
    await ask("PUT", `/api1/sequences/${chosen}`, { headers: { "If-None-Match": "*" } });
  } catch (error) {
    // An earlier attempt has created it.
    if (!(error instanceof Problem && error.status === 412)) {
      throw error;
    }
  }
  remember(chosen);
  chosen = null;
}

// --- What is shown -------------------------------------------------------------------------------

function show({ headers, body: sequence }) {
  position = sequence.position;
  tag = headers.get("ETag");
  const name = `F(${grouped(position)})`;
  at("name").textContent = grouped(position);
  at("position").textContent = grouped(position);
  at("digits").textContent = grouped(sequence.digits);
  at("said").textContent = view.show({
    ...parts(name, sequence.value),
    filename: `fibonacci-${position}.txt`,
  });
}

function unknown() {
  view.clear();
  for (const fact of ["name", "position", "digits"]) {
    at(fact).textContent = "…";
  }
  at("took").textContent = "–";
  at("phases").textContent = "";
  at("said").textContent = "";
}

/** Report that there is no such sequence, and offer another one. */
function showGone() {
  clearTimeout(lookTimer);
  unknown();
  position = tag = null;
  at("keep").hidden = true;
  forget(id);
  say(
    at("problem"),
    "There is no such sequence",
    "It was deleted, it expired because nobody stepped it, or the address is incomplete.",
    // A new sequence would replace the one that the browser remembers.
    button(remembered() ? "Open my private sequence" : "Create one", openOwn, "main"),
  );
}

function report(error) {
  if (error instanceof Problem && error.status === 404) {
    showGone();
  } else if (error instanceof Problem) {
    complain(at("problem"), error.title, error.detail);
  } else if (error instanceof Lost) {
    outage.begin("The service does not answer");
  } else if (!isAborted(error)) {
    throw error;
  }
}

// --- Looking -------------------------------------------------------------------------------------

/** Show the sequence as it is now. */
async function look() {
  clearTimeout(lookTimer);
  const { signal } = stop;
  try {
    const headers = tag === null ? {} : { "If-None-Match": tag };
    const answer = await outlast(() => ask("GET", address(), { headers, signal, read: "json" }));
    signal.throwIfAborted();
    if (answer.status === 200) {
      show(answer);
      lookTook = answer.ms;
    }
    endOutage();
    lookAgain(Math.max(LOOK_MS, LOOKS_SHARE * lookTook));
  } catch (error) {
    if (error instanceof Problem && error.status === 503) {
      outage.begin(error.title, error.detail);
    } else if (error instanceof Problem && error.status === 404) {
      endOutage();
      report(error);
    } else if (error instanceof Problem) {
      report(error);
      lookAgain(LONGEST_PAUSE_MS);
    } else {
      report(error);
    }
  }
}

function lookAgain(ms) {
  clearTimeout(lookTimer);
  lookTimer = setTimeout(() => {
    if (!document.hidden) {
      enqueue(look);
    }
  }, ms);
}

/** Repeat a request while the service computes the term that it needs, and changes nothing. */
async function outlast(request) {
  const { signal } = stop;
  let work;
  try {
    for (;;) {
      try {
        return await request();
      } catch (error) {
        if (!(error instanceof Problem && error.monitor)) {
          throw error;
        }
        const n = error.monitor.split("/").at(-2);
        work?.end();
        work = new Work(at("work"), `F(${grouped(n)})`, "Stop waiting", stopWaiting);
        await watch(error.monitor, retryAfter(error.headers), (job) => work.show(job), signal);
      }
    }
  } finally {
    work?.end();
  }
}

function stopWaiting() {
  stop.abort();
  stop = new AbortController();
  if (position !== null || outage.isNow) {
    lookAgain(0);
  }
}

function endOutage() {
  const from = outage.end();
  if (from !== null) {
    complain(
      at("problem"),
      "The last change may or may not have been made",
      // The request may still be on its way, and make the change later.
      `Its answer was lost. The sequence was at position ${grouped(from)} when it was sent; ` +
        "where it is now is shown below, and may still change. Nothing has been sent again.",
    );
  }
}

// --- Changing ------------------------------------------------------------------------------------

/**
 * Run an action of the user after all earlier ones, unless the service is away by then, or another
 * sequence is shown.
 *
 * @param action is called with the signal that another sequence is shown
 * @param drop is called instead of `action` if that has happened already
 */
function attempt(action, drop = sayNotDone) {
  if (outage.isNow) {
    outage.refuse();
    return;
  }
  const { signal } = stop;
  asked += 1;
  busyTimer ??= setTimeout(() => at("controls").setAttribute("aria-busy", "true"), UNNOTICED_MS);
  enqueue(async () => {
    try {
      if (signal.aborted) {
        drop();
        return;
      }
      if (outage.isNow) {
        outage.refuse();
        return;
      }
      await action(signal);
    } catch (error) {
      // A problem of another sequence is not reported for this one.
      if (!(signal.aborted && error instanceof Problem)) {
        report(error);
      }
    } finally {
      asked -= 1;
      if (asked === 0) {
        clearTimeout(busyTimer);
        busyTimer = null;
        at("controls").removeAttribute("aria-busy");
      }
    }
  });
}

function sayNotDone() {
  dropped += 1;
  complain(
    at("problem"),
    "Not done",
    "Your action was still waiting when you stopped waiting or opened another sequence. Repeat " +
      "it if you still want it.",
  );
}

function change(method, path, body) {
  attempt(async (signal) => {
    if (position === null) {
      await look();
      return;
    }
    at("problem").replaceChildren();
    const from = position;
    const headers = { Prefer: "timing", ...(id === SHARED ? {} : { "If-Match": tag }) };
    if (body) {
      headers["Content-Type"] = "application/json";
    }
    try {
      const answer = await outlast(() => ask(method, path, { headers, body, read: "json" }));
      signal.throwIfAborted();
      show(answer);
      lookTook = answer.ms;
      at("took").textContent = `${milliseconds(answer.ms * 1000)} ms`;
      at("phases").textContent = phases(answer.headers);
      chart.add(answer.body.position, answer.body.digits, answer.ms);
    } catch (error) {
      if (signal.aborted) {
        throw error;
      }
      if (error instanceof Problem && error.status === 412) {
        // A tag begins with the position.
        complainOfMove(from, /\d+/.exec(error.headers.get("ETag"))[0]);
      } else {
        report(error);
      }
      if (error instanceof Lost) {
        outage.unsure = from;
      } else if (error instanceof Problem && error.status !== 404) {
        lookAgain(0);
      }
    }
  });
}

function complainOfMove(from, to) {
  complain(
    at("problem"),
    "The sequence has been moved meanwhile",
    "Another client has moved it, or a change whose answer was lost. It is at position " +
      `${grouped(to)}, no longer at ${grouped(from)}, and your step was not made. ` +
      "Repeat it if you still want it.",
  );
}

function step(direction) {
  if (at("steps").reportValidity()) {
    change("POST", `${address()}/${direction}?by=${encodeURIComponent(read(at("by").value))}`);
  }
}

requireNumber(at("by"), "a whole number, such as 10, 1,000 or 1e6");
requireNumber(at("target"), "a whole number, such as 1000, 1,000,000 or 1e6");
at("previous").addEventListener("click", () => step("previous"));
at("steps").addEventListener("submit", (event) => {
  event.preventDefault();
  step("next");
});
at("seek").addEventListener("submit", (event) => {
  event.preventDefault();
  change("PUT", address(), JSON.stringify({ position: read(at("target").value) }));
});

at("shared").addEventListener("click", () => goTo(SHARED));
at("own").addEventListener("click", openOwn);
at("remove").addEventListener("click", () => at("removal").showModal());
at("keep-it").addEventListener("click", () => at("removal").close());
at("forget").addEventListener("click", () => {
  at("removal").close();
  forget(id);
  goTo(SHARED);
});
at("delete").addEventListener("click", () => {
  at("removal").close();
  attempt(async (signal) => {
    const deleted = id;
    await ask("DELETE", address());
    forget(deleted);
    signal.throwIfAborted();
    goTo(SHARED);
  });
});

addEventListener("hashchange", open);
addEventListener("online", () => enqueue(look));
document.addEventListener("visibilitychange", () => lookAgain(0));
open();
