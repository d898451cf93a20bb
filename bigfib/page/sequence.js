/**
 * The sequence that one steps: shared by all, or one's own.
 *
 * The fragment of the page's address names one's own sequence. So it can be bookmarked and opened
 * elsewhere, and is sent neither to servers nor to their logs. The browser also remembers the one
 * that was created here, so that "My own" finds it again.
 *
 * A change is never repeated by itself when its answer is lost, for it may have been made: the page
 * says so, asks until the service is back, and shows where the sequence then stands. A step of
 * one's own sequence is made only from the position that is shown (`If-Match`); that of the shared
 * one from wherever others have moved it by then.
 */

import { Chart, milliseconds } from "./chart.js";
import { Work, button, complain, say } from "./notice.js";
import { Lost, Problem, ask, isAborted, retryAfter, watch } from "./service.js";
import { TermView, grouped, parts, plain } from "./term.js";

const SHARED = "shared";
const REMEMBERED = "bigfib.own";

// Who has clicked and sees nothing happen for as long, is told that it was taken.
const UNNOTICED_MS = 300;

// How often to look whether others have stepped it; less often, the longer a look takes.
const LOOK_MS = 1000;
const LOOKS_SHARE = 20;

const LONGEST_PAUSE_MS = 15_000;

const ASKS_AGAIN = "This page asks again by itself, and goes on when it is back.";

const at = (id) => document.getElementById(id);
const chart = new Chart(at("chart"));
const view = new TermView(at("current"), (error) => report(error));

let id = SHARED;
let kept = null; // One's own, as long as the page is open.
let position = null; // None is shown yet.
let away = null; // While the service is: how long to wait, and the timer of that.
let lookTimer;
let lookTook = 0;
let stop = new AbortController();
let queue = Promise.resolve();
let dropped = 0; // How much of it was not done.
let asked = 0; // How much of what somebody has asked for is not done yet.
let busyTimer;

/** Do it after all that is to be done before. */
function enqueue(action) {
  queue = queue.then(action).catch(reportError);
}

// --- Which one -----------------------------------------------------------------------------------

const address = () => `/api1/sequences/${id}`;

const named = () => /^#([0-9a-f]{32})$/.exec(location.hash)?.[1] ?? SHARED;

// A browser may be told to keep nothing; then this page does, and the address.
function remembered() {
  try {
    return localStorage.getItem(REMEMBERED) ?? kept;
  } catch {
    return kept;
  }
}

function remember(own) {
  kept = own;
  try {
    localStorage.setItem(REMEMBERED, own);
  } catch {
    // See above.
  }
}

function forget() {
  if (remembered() === id) {
    kept = null;
    try {
      localStorage.removeItem(REMEMBERED);
    } catch {
      // See above.
    }
  }
}

function open() {
  stop.abort();
  stop = new AbortController();
  id = named();
  position = null;
  const isShared = id === SHARED;
  at("shared").ariaPressed = String(isShared);
  at("own").ariaPressed = String(!isShared);
  at("keep").hidden = isShared;
  // It was about the sequence that is left.
  at("removal").close();
  at("problem").replaceChildren();
  if (away) {
    away.unsure = null;
  }
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
    // Whoever has clicked twice is content with one.
    if (!remembered()) {
      remember((await ask("POST", "/api1/sequences", { read: "json" })).body.id);
    }
    signal.throwIfAborted();
    goTo(remembered());
    if (dropped !== before) {
      sayNotDone();
    }
  };
  attempt(create, () => {});
}

// --- What is shown -------------------------------------------------------------------------------

function show(sequence) {
  position = sequence.position;
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
  at("said").textContent = "";
}

/** Say that there is no such sequence, and show a way on. */
function showGone() {
  clearTimeout(lookTimer);
  unknown();
  position = null;
  at("keep").hidden = true;
  forget();
  say(
    at("problem"),
    "This sequence is gone",
    "It has been deleted, nobody has stepped it for too long, or its address is not as it was.",
    // A new one would take the place of the one that this browser still knows.
    button(remembered() ? "Open my own" : "Begin a new one", openOwn, "main"),
  );
}

function report(error) {
  if (error instanceof Problem && error.status === 404) {
    showGone();
  } else if (error instanceof Problem) {
    complain(at("problem"), error.title, error.detail);
  } else if (error instanceof Lost) {
    leave("The service does not answer");
  } else if (!isAborted(error)) {
    throw error;
  }
}

// --- Looking -------------------------------------------------------------------------------------

/** Show the sequence as it stands. It is up to date, then, and the service is there. */
async function look() {
  clearTimeout(lookTimer);
  const { signal } = stop;
  try {
    const headers = position === null ? {} : { "If-None-Match": `"${position}"` };
    const answer = await outlast(() => ask("GET", address(), { headers, signal, read: "json" }));
    signal.throwIfAborted();
    if (answer.status === 200) {
      show(answer.body);
      lookTook = answer.ms;
    }
    comeBack();
    lookAgain(Math.max(LOOK_MS, LOOKS_SHARE * lookTook));
  } catch (error) {
    if (error instanceof Problem && error.status === 503) {
      leave(error.title, error.detail);
    } else if (error instanceof Problem && error.status === 404) {
      comeBack();
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

/** Do it again and again while the term that it needs is being computed; nothing has changed. */
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
  if (position !== null || away) {
    lookAgain(0);
  }
}

// --- The service away and back -------------------------------------------------------------------

function leave(title, detail = ASKS_AGAIN) {
  const pause = away ? Math.min(away.pause * 2, LONGEST_PAUSE_MS) : 500;
  clearTimeout(away?.timer);
  at("back").textContent = "";
  if (away?.title !== title) {
    say(at("away"), title, detail, button("Try now", tryNow));
  }
  away = { ...away, pause, title, timer: setTimeout(tryNow, pause) };
  document.body.classList.add("is-away");
}

function tryNow() {
  enqueue(look);
}

function comeBack() {
  if (!away) {
    return;
  }
  clearTimeout(away.timer);
  const { unsure } = away;
  away = null;
  at("away").replaceChildren();
  document.body.classList.remove("is-away");
  if (unsure) {
    complain(
      at("problem"),
      "The last change may have been made or not",
      // What was sent may still be on its way, and be made after this.
      `Its answer was lost. The sequence was at position ${grouped(unsure)} when it was sent; ` +
        "where it is now is shown above, and may still change. Nothing has been sent again.",
    );
  } else {
    at("back").textContent = "The service is back.";
  }
}

// --- Changing ------------------------------------------------------------------------------------

/**
 * Do what somebody has asked for, after all that he asked for before.
 *
 * It is not done if the service is away, when he asks or when it would be its turn; nor if he has
 * turned to another sequence by then.
 *
 * @param action is given the signal of that
 * @param drop is called instead if he has
 */
function attempt(action, drop = sayNotDone) {
  if (away) {
    sayNotSent();
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
      if (away) {
        sayNotSent();
        return;
      }
      await action(signal);
    } catch (error) {
      // What is wrong with another sequence is not said of this one.
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

function sayNotSent() {
  say(at("away"), `Not sent. ${away.title}`, ASKS_AGAIN, button("Try now", tryNow));
}

function sayNotDone() {
  dropped += 1;
  complain(
    at("problem"),
    "Not done",
    "What you asked for was still waiting when you stopped that, or turned to something else. Do " +
      "it again if you still want it.",
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
    const headers = id === SHARED ? {} : { "If-Match": `"${from}"` };
    if (body) {
      headers["Content-Type"] = "application/json";
    }
    try {
      const answer = await outlast(() => ask(method, path, { headers, body, read: "json" }));
      signal.throwIfAborted();
      show(answer.body);
      lookTook = answer.ms;
      at("took").textContent = `${milliseconds(answer.ms * 1000)} ms`;
      chart.add(answer.body.position, answer.body.digits, answer.ms);
    } catch (error) {
      if (signal.aborted) {
        throw error;
      }
      if (error instanceof Problem && error.status === 412) {
        complainOfMove(from, JSON.parse(error.headers.get("ETag")));
      } else {
        report(error);
      }
      if (error instanceof Lost) {
        away.unsure = from;
      } else if (error instanceof Problem && error.status !== 404) {
        lookAgain(0);
      }
    }
  });
}

function complainOfMove(from, to) {
  complain(
    at("problem"),
    "It has been moved meanwhile",
    "Somebody else has moved it, or a change whose answer was lost. It is at position " +
      `${grouped(to)}, no longer at ${grouped(from)}, so that nothing was changed now. ` +
      "Do it again if you still want it.",
  );
}

function step(direction) {
  if (at("steps").reportValidity()) {
    change("POST", `${address()}/${direction}?by=${encodeURIComponent(plain(at("by").value))}`);
  }
}

at("previous").addEventListener("click", () => step("previous"));
at("steps").addEventListener("submit", (event) => {
  event.preventDefault();
  step("next");
});
at("seek").addEventListener("submit", (event) => {
  event.preventDefault();
  change("PUT", address(), JSON.stringify({ position: plain(at("target").value) }));
});

at("shared").addEventListener("click", () => goTo(SHARED));
at("own").addEventListener("click", openOwn);
at("remove").addEventListener("click", () => at("removal").showModal());
at("keep-it").addEventListener("click", () => at("removal").close());
at("forget").addEventListener("click", () => {
  at("removal").close();
  forget();
  goTo(SHARED);
});
at("delete").addEventListener("click", () => {
  at("removal").close();
  attempt(async (signal) => {
    await ask("DELETE", address());
    forget();
    signal.throwIfAborted();
    goTo(SHARED);
  });
});

addEventListener("hashchange", open);
addEventListener("online", tryNow);
document.addEventListener("visibilitychange", () => lookAgain(0));
open();
