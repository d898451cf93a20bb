"""The service loses power, again and again, and nothing that it acknowledged is lost."""

import random
import re
from collections import Counter
from contextlib import suppress
from http.client import HTTPException

import pytest

from tests.power.episode import Episode
from tests.power.machine import Machine
from tests.power.syncs import is_listed
from tests.service import Serve

LIVES = 12


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Chooses the power cuts: always the same ones, except with `--torture`."""
    return random.randrange(1 << 32) if request.config.getoption("torture") else 21


def cut_power(machine: Machine, seed: int, lives: int) -> Counter[str]:
    """Let services die this many times, on disks that are empty at first; return what was done."""
    tried: Counter[str] = Counter()
    for number in range(lives // LIVES):
        episode = Episode(machine, seed + number)
        try:
            for _ in range(LIVES):
                episode.live()
            episode.check()
        except AssertionError as failure:
            done = f"seed {seed + number}, after {dict(episode.tried)}"
            raise AssertionError(f"{done}: {failure}") from failure
        tried.update(episode.tried)
        machine.look()
        unlisted = [what for what in machine.syncs if not is_listed(what)]
        assert not unlisted, "does a test show that these syncs are needed?"
    return tried


def test_acknowledged_steps_survive_power_cuts(
    machine: Machine, tried: Counter[str], seed: int
) -> None:
    tried.update(cut_power(machine, seed, 2 * LIVES))


@pytest.mark.campaign
def test_service_starts_after_power_cuts_with_durability_os(
    machine: Machine, seed: int, times: int
) -> None:
    """Restart on whatever is left."""
    episode = Episode(machine, seed, durability="os")
    for _ in range(20 * times):
        episode.live()


@pytest.mark.campaign
@pytest.mark.parametrize("part", [0, 1])
def test_acknowledged_steps_survive_many_power_cuts(
    machine: Machine, tried: Counter[str], seed: int, part: int, times: int
) -> None:
    # In every eighth life or so the service is only killed.
    lives, least = (192, 140) if times == 1 else (3_000, 2_500)
    done = cut_power(machine, seed + (1 + part) * 1_000_000, lives)
    tried.update(done)
    assert sum(count for what, count in done.items() if "power cuts" in what) >= least


@pytest.mark.campaign
def test_loss_on_a_disk_without_powersafe_overwrite_is_reported(
    machine: Machine, serve: Serve, tried: Counter[str], seed: int, times: int
) -> None:
    chance = random.Random(seed)
    log = machine.directory / "state.log"
    for _ in range(20 * times):
        machine.format()
        service = serve("-f", str(log))
        machine.arm(chance.randint(1, 100))
        acknowledged = 0
        with suppress(OSError, HTTPException):
            while service.value("next"):
                acknowledged += 1
        service.wait()
        machine.power_on(chance, powersafe=False)
        try:
            service = serve("-f", str(log))
        except AssertionError as failure:
            if not re.search("is damaged|the checksum of its header|magic bytes", str(failure)):
                raise
            tried["power cuts that harmed sectors: refused"] += 1
            continue
        if service.start_position < acknowledged:
            assert "the bytes from there on are cut off, and kept in" in "".join(service.said)
            tried["power cuts that harmed sectors: lost, with a warning"] += 1
        else:
            tried["power cuts that harmed sectors: nothing lost"] += 1
        service.process.kill()
        service.wait()
