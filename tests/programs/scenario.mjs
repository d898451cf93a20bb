// Create, step, seek, a large term and an index, by the fetch of Node.
const [service, n] = process.argv.slice(2);
const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

async function ask(method, path, headers = {}, body = undefined) {
  for (;;) {
    try {
      const reply = await fetch(service + path, { method, headers, body });
      const text = await reply.text();
      if (reply.status !== 202) return { status: reply.status, tag: reply.headers.get("ETag"), text };
      await pause(0.1);
    } catch {
      await pause(0.1); // Lost.
    }
  }
}

const sequence = `/api1/sequences/${crypto.randomUUID().replaceAll("-", "")}`;
const json = { "Content-Type": "application/json" };
const show = (what, { status, text }) => console.log(what, status, JSON.parse(text).position);

show("create", await ask("PUT", sequence, { "If-None-Match": "*" }));
const { tag } = await ask("GET", sequence);
show("step", await ask("POST", `${sequence}/next`, { "If-Match": tag }));
show("seek", await ask("PUT", sequence, json, '{"position":"100"}'));
const { text } = await ask("GET", `/api1/terms/${n}`, { Accept: "text/plain" });
console.log("term", text.length, text.slice(0, 20), text.slice(-20));
const value = JSON.parse((await ask("GET", sequence)).text).value;
const found = await ask("POST", "/api1/index", { "Content-Type": "text/plain" }, value);
console.log("index", JSON.parse(found.text).n.join());
