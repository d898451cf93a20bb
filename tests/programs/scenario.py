"""Create, step, seek, a large term and an index, by httpx."""

import sys
import time
import uuid

import httpx

service, n = sys.argv[1:]
client = httpx.Client(base_url=service, timeout=20)


def ask(method, path, **request):
    while True:
        try:
            reply = client.request(method, path, **request)
        except httpx.TransportError:
            time.sleep(0.1)  # The reply was lost.
            continue
        if reply.status_code != 202:
            return reply
        time.sleep(0.1)


def show(what, reply):
    print(what, reply.status_code, reply.json()["position"])


sequence = f"/api1/sequences/{uuid.uuid4().hex}"
show("create", ask("PUT", sequence, headers={"If-None-Match": "*"}))
tag = ask("GET", sequence).headers["ETag"]
show("step", ask("POST", f"{sequence}/next", headers={"If-Match": tag}))
show("seek", ask("PUT", sequence, json={"position": "100"}))
term = ask("GET", f"/api1/terms/{n}", headers={"Accept": "text/plain"}).text
print("term", len(term), term[:20], term[-20:])
value = ask("GET", sequence).json()["value"]
found = ask("POST", "/api1/index", content=value, headers={"Content-Type": "text/plain"})
print("index", ",".join(found.json()["n"]))
