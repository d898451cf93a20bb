"""The properties in ``tests/fuzz`` hold for bytes that nobody thought of."""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.numbers.kernels import compiled

# Executions in a thorough run, by the time that one takes.
EXECUTIONS = {"records": 4_000_000, "requests": 5_500_000, "decimals": 600_000, "reader": 200_000}


@pytest.mark.parametrize("target", EXECUTIONS)
def test_properties_hold_for_bytes_by_hypothesis(target: str, times: int) -> None:
    module = importlib.import_module(f"tests.fuzz.{target}")

    # If a target has several properties, the first byte chooses one.
    @settings(max_examples=200 * times, deadline=None, database=None)
    @given(st.integers(0, 255), st.binary(max_size=300))
    def check(choice: int, data: bytes) -> None:
        module.check(bytes([choice]) + data)

    check()


@pytest.mark.campaign
def test_kernel_reads_and_writes_nothing_beyond_its_buffers(
    tmp_path: Path, times: int, tried: Counter[str]
) -> None:
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g"]
    library = compiled(tmp_path, *sanitizers)
    compiler = os.environ.get("CC") or "cc"
    runtime = subprocess.run(
        [*compiler.split(), "-print-file-name=libasan.so"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    if not Path(runtime).is_absolute():
        pytest.skip("the compiler has no AddressSanitizer to be loaded beforehand")
    environment = os.environ | {
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0",
        # Otherwise Python's objects would be parts of larger pieces of memory.
        "PYTHONMALLOC": "malloc",
    }
    count = 300 * times
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.kernel", str(library), str(count)],
        cwd=Path(__file__).parent.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[:3000]
    tried["inputs of the kernel, with sanitizers"] += count


@pytest.mark.campaign
@pytest.mark.parametrize("target", EXECUTIONS)
def test_properties_hold_for_bytes_by_coverage(
    target: str, tmp_path: Path, times: int, tried: Counter[str]
) -> None:
    if importlib.util.find_spec("atheris") is None:
        reason = "atheris is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    runs = EXECUTIONS[target] // (1 if times > 1 else 100)
    # Useful inputs found so far, shared by several processes.
    found = tmp_path / "corpus"
    found.mkdir()
    each = len(os.sched_getaffinity(0)) if times > 1 else 1
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.fuzz", target),
                *(f"-runs={runs // each}", f"-seed={number + 1}", "-max_len=300", "-reload=1"),
                *(f"-artifact_prefix={tmp_path}/", str(found)),
            ],
            cwd=Path(__file__).parent.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        for number in range(each)
    ]
    for process in processes:
        said, _ = process.communicate()
        assert process.returncode == 0, said[-3000:]
        done = re.search(r"Done (\d+) runs", said)
        assert done, said[-3000:]
        tried[f"inputs of {target}, by coverage"] += int(done[1])
