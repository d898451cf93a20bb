"""Create, move and read sequences of a real service."""

import json
import re
from http.client import HTTPResponse

from flint import fmpz

from tests.service import Service

COLLECTION = "/api1/sequences"
SHARED = f"{COLLECTION}/shared"
FARTHEST = 1_000_000
JSON = {"Content-Type": "application/json"}


def term(position: int) -> str:
    return fmpz.fib_ui(fmpz(position)).str(base=10)


def document_at(sequence_id: str, position: int) -> bytes:
    digits = term(position)
    return (
        f'{{"id":"{sequence_id}","position":"{position}","digits":"{len(digits)}",'
        f'"value":"{digits}"}}'
    ).encode()


def created(service: Service) -> str:
    """Create a sequence and return its path."""
    reply, _ = service.ask(COLLECTION, "POST")
    assert reply.status == 201
    return reply.headers["Location"]


def put(service: Service, path: str, position: int | str) -> tuple[HTTPResponse, bytes]:
    return service.ask(path, "PUT", JSON, json.dumps({"position": str(position)}).encode())


def tagged(reply: HTTPResponse) -> int:
    """Return the position in the tag of a reply, which has a version, too."""
    found = re.fullmatch('"([0-9]+)-([0-9]+)"', reply.headers["ETag"])
    assert found, reply.headers["ETag"]
    return int(found[1])


def position(service: Service, path: str) -> int:
    reply, body = service.ask(path)
    assert reply.status == 200, body
    return int(json.loads(body)["position"])
