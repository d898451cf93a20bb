/** Count the digits of a term in a worker, because there may be hundreds of millions. */

const ZERO = 48;
const FIRST = 1000;
const REPORT_MS = 200;

onmessage = async ({ data: path }) => {
  try {
    postMessage(await count(path));
  } catch (error) {
    postMessage({ failure: error.message });
  }
};

/** Return how often each digit occurs among the first thousand, and among all. */
async function count(path) {
  const reply = await fetch(path, { headers: { Accept: "text/plain" } });
  if (reply.status !== 200) {
    throw new Error(`status ${reply.status}`);
  }
  const length = Number(reply.headers.get("Content-Length"));
  const bytes = new Float64Array(256);
  let first = null;
  let done = 0;
  let reported = performance.now();
  const reader = reply.body.getReader();
  for (;;) {
    const { value, done: isOver } = await reader.read();
    if (isOver) {
      break;
    }
    for (const byte of value) {
      bytes[byte] += 1;
      // A minus sign is not among the digits.
      if (first === null && sum(bytes) === FIRST) {
        first = digitsOf(bytes);
      }
    }
    done += value.length;
    if (performance.now() - reported > REPORT_MS) {
      reported = performance.now();
      postMessage({ progress: done / length });
    }
  }
  return { first, all: digitsOf(bytes) };
}

const digitsOf = (bytes) => [...bytes.slice(ZERO, ZERO + 10)];

const sum = (bytes) => digitsOf(bytes).reduce((total, each) => total + each, 0);
