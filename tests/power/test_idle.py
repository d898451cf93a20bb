"""The floor of a service that was idle for a second is on the disk when the power fails."""

import random

import pytest

from tests.power.machine import Machine
from tests.service import Serve, until


def test_harm_to_the_log_of_an_idle_service_is_reported(machine: Machine, serve: Serve) -> None:
    log = machine.directory / "state.log"

    def syncs() -> dict[str, int]:
        machine.look()
        return machine.syncs

    service = serve("-f", str(log))
    for _ in range(3):
        service.value("next")
    # The directory is synced after it.
    until(lambda: "new state.log.floor" in syncs())
    assert syncs()["state.log.floor"] == 1
    service.process.kill()
    service.wait()
    machine.power_on(random.Random(1))
    content = bytearray(log.read_bytes())
    content[-1] ^= 1
    log.write_bytes(content)
    with pytest.raises(AssertionError, match=r"is damaged: .* it was whole up to offset"):
        serve("-f", str(log))
