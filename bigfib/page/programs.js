/** Programs that print what the page shows. */

import { path } from "./wanted.js";

const LANGUAGES = {
  curl: {
    once: `curl -sS -H 'Accept: {accept}' \\
  '{url}'`,
    waiting: `# The status is 202 while the term is computed.
while [ "$(curl -sS -o term.txt -w '%{http_code}' \\
  -H 'Accept: {accept}' \\
  '{url}')" = 202 ]
do sleep 1; done; cat term.txt`,
  },
  Python: {
    once: `from urllib.request import Request, urlopen

request = Request(
    "{url}",
    headers={"Accept": "{accept}"},
)
print(urlopen(request).read().decode())`,
    waiting: `import time
from urllib.request import Request, urlopen

request = Request(
    "{url}",
    headers={"Accept": "{accept}"},
)
# The status is 202 while the term is computed.
while (reply := urlopen(request)).status == 202:
    time.sleep(int(reply.headers["Retry-After"]))
print(reply.read().decode())`,
  },
  JavaScript: {
    once: `const reply = await fetch(
  "{url}",
  { headers: { Accept: "{accept}" } },
);
console.log(await reply.text());`,
    waiting: `const ask = () => fetch(
  "{url}",
  { headers: { Accept: "{accept}" } },
);
let reply;
// The status is 202 while the term is computed.
while ((reply = await ask()).status === 202) {
  const seconds = reply.headers.get("Retry-After");
  await new Promise((resume) => setTimeout(resume, seconds * 1000));
}
console.log(await reply.text());`,
  },
};

/**
 * Return programs that print what is `wanted`, by language.
 *
 * @param waits whether the service may have to compute it first, and answer 202 until then
 */
export function programs(origin, wanted, waits) {
  const url = origin + path(wanted);
  const accept = wanted.what === "summary" ? "application/json" : "text/plain";
  const kind = waits ? "waiting" : "once";
  return Object.fromEntries(
    Object.entries(LANGUAGES).map(([language, templates]) => [
      language,
      templates[kind].replace("{url}", url).replace("{accept}", accept),
    ]),
  );
}
