"""The commands for state logs."""

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bigfib.sequences import SHARED
from bigfib.state import floor, reader
from bigfib.state.log import Durability, Log
from tests.cli.command import (
    Command,
)
from tests.service import Serve


class TestLog:
    def test_verify_reports_a_whole_and_a_torn_log(self, bigfib: Command) -> None:
        for _ in range(3):
            bigfib("next")
        size = bigfib.file.stat().st_size
        whole = f"{bigfib.file}: records 3, sequences 1, bytes {size}: whole\n"
        assert bigfib.prints("log", "verify") == whole
        with bigfib.file.open("ab") as file:
            file.write(b"\x10")
        torn = bigfib("log", "verify")
        assert torn.returncode == 4
        assert f"bytes {size}: torn: at offset {size} there is" in torn.stdout
        assert bigfib.file.stat().st_size == size + 1

    def test_dump_prints_every_record(self, bigfib: Command) -> None:
        other = b"\xab" * 16
        with Log(bigfib.file, clock=lambda: 20_000 * 86_400) as opened:
            ends = [opened.size]
            for sequence_id, position in ((b"shared", 1), (other, 10**30), (other, None)):
                opened.note(sequence_id, position)
                opened.commit()
                ends.append(opened.size)
        assert bigfib.prints("log", "dump").splitlines() == [
            f"{ends[0]} shared 1 20000 {ends[0]}",
            f"{ends[1]} {'ab' * 16} {10**30} 20000 {ends[1]}",
            f"{ends[2]} {'ab' * 16} removed 20000 {ends[2]}",
        ]

    def test_dump_as_json_has_a_document_a_record(self, bigfib: Command) -> None:
        other = b"\xab" * 16
        with Log(bigfib.file, clock=lambda: 20_000 * 86_400) as opened:
            start = opened.size
            opened.note(other, 10**30)
            opened.commit()
            opened.note(other, None)
        lines = [json.loads(line) for line in bigfib.prints("log", "dump", "--json").splitlines()]
        assert [(line["id"], line["position"], line["day"]) for line in lines] == [
            ("ab" * 16, str(10**30), 20_000),
            ("ab" * 16, None, 20_000),
        ]
        assert lines[0]["offset"] == lines[0]["durable"] == start
        assert start < lines[1]["offset"] == lines[1]["durable"] < bigfib.file.stat().st_size

    def test_dump_of_many_takes_no_more_memory(self, bigfib: Command) -> None:
        def peak(count: int) -> int:
            with Log(bigfib.file, Durability.OS) as opened:
                for n in range(count):
                    opened.note(n.to_bytes(16, "big"), n)
            arguments = [sys.executable, "-m", "bigfib", "log", "dump", "--json"]
            with subprocess.Popen(
                arguments, stdout=subprocess.PIPE, env=bigfib.environ, text=True
            ) as dump:
                assert dump.stdout is not None
                # The rest does not fit into the pipe, so that the command cannot have ended.
                for _ in range(count - 2_000):
                    dump.stdout.readline()
                status = Path(f"/proc/{dump.pid}/status").read_text()
                dump.stdout.read()
            assert dump.returncode == 0
            bigfib.file.unlink()
            floor.path_of(bigfib.file).unlink()
            found = re.search(r"VmHWM:\s+(\d+) kB", status)
            assert found
            return int(found[1])

        # A dictionary of all of them takes 17 MB.
        assert peak(100_000) < peak(3_000) + 8_000

    def test_compact_shrinks_the_log(self, bigfib: Command) -> None:
        for _ in range(5):
            bigfib("next")
        before = bigfib.file.stat().st_size
        shown = bigfib.prints("log", "compact")
        after = bigfib.file.stat().st_size
        assert after < before
        assert shown == f"{bigfib.file}: bytes {before} before, {after} now\n"
        assert bigfib.prints("current") == "5\n"

    @pytest.mark.parametrize(
        "command", [["log", "compact"], ["next"], ["previous"], ["seek", "5"], ["log", "repair"]]
    )
    def test_no_command_expires_a_sequence(
        self, bigfib: Command, tmp_path: Path, command: list[str]
    ) -> None:
        """Maintenance expires nothing, whatever its settings and the clock."""
        with Log(bigfib.file, Durability.OS, clock=lambda: time.time() - 100 * 86_400) as log:
            for position in range(1, 10):
                for name in (SHARED, bytes(16)):
                    log.note(name, position)
                log.commit()
        if command == ["log", "repair"]:
            harmed = bytearray(bigfib.file.read_bytes())
            harmed[5] ^= 1
            bigfib.file.write_bytes(harmed)
        (tmp_path / "sitecustomize.py").write_text(
            "import time\nnow = time.time\ntime.time = lambda: now() + 73 * 365 * 86_400\n"
        )
        bigfib.environ |= {
            "PYTHONPATH": str(tmp_path),
            "BIGFIB_SEQUENCE_TTL": "1",
            "BIGFIB_REWRITE_BYTES": "1",
        }
        assert bigfib(*command).returncode == 0
        left = bigfib.file
        if command == ["log", "repair"]:
            left = left.with_name("state.log.repaired")
        contents = reader.read(left)
        assert contents.position(bytes(16)) == 9
        assert contents.records < 5, "the log was not rewritten"

    def test_compact_of_a_mount_point_fails(
        self, bigfib: Command, require: Callable[[str], str]
    ) -> None:
        with Log(bigfib.file, Durability.OS) as log:
            for position in range(1, 10):
                log.note(SHARED, position)
                log.commit()
        bigfib.environ["BIGFIB_REWRITE_BYTES"] = "1"
        before = bigfib.file.read_bytes()
        mounted = subprocess.run(
            [require("mount"), "--bind", bigfib.file, bigfib.file], capture_output=True, check=False
        )
        if mounted.returncode != 0:
            pytest.skip("mounting is not permitted")
        try:
            refusal = bigfib.fails("log", "compact")
        finally:
            subprocess.run(["umount", "-l", bigfib.file], check=True)
        assert refusal.startswith(f"1: bigfib: state log {bigfib.file} cannot be compacted now: ")
        assert "Device or resource busy; it is unchanged" in refusal
        assert bigfib.file.read_bytes() == before
        assert not bigfib.file.with_name("state.log.new").exists()

    def test_compact_in_a_directory_that_cannot_be_written_fails(
        self, bigfib: Command, require: Callable[[str], str]
    ) -> None:
        bigfib.prints("next")
        # Root may write anywhere except here.
        protect = require("chattr")
        if subprocess.run([protect, "+i", bigfib.file.parent], check=False).returncode != 0:
            pytest.skip("this file system protects no directories")
        try:
            refusal = bigfib.fails("log", "compact")
        finally:
            subprocess.run([protect, "-i", bigfib.file.parent], check=True)
        assert "cannot be compacted now: Operation not permitted; it is unchanged" in refusal
        assert bigfib.prints("current") == "1\n"

    def test_compact_beside_a_service_is_refused(self, serve: Serve, bigfib: Command) -> None:
        service = serve()
        assert f"in use by process {service.process.pid}" in bigfib.fails("log", "compact")

    def test_damaged_log_is_refused_until_it_is_repaired(self, bigfib: Command) -> None:
        with Log(bigfib.file) as opened:
            ends = []
            for position in range(1, 11):
                opened.note(b"shared", position)
                opened.commit()
                ends.append(opened.size)
        harmed = bytearray(bigfib.file.read_bytes())
        harmed[ends[3] + 3] ^= 1
        bigfib.file.write_bytes(harmed)
        damage = f"state log {bigfib.file} is damaged: at offset {ends[3]} there is a"
        for command in (["current"], ["next"], ["log", "verify"], ["log", "compact"], ["-p", "0"]):
            assert damage in bigfib.fails(*command)
        listed = bigfib("log", "dump")
        assert listed.returncode == 1
        assert len(listed.stdout.splitlines()) == 4
        assert f"at offset {ends[3]}" in listed.stderr
        assert bigfib.prints("log", "repair").splitlines() == [
            f"{bigfib.file}.repaired: sequences 1, from records 9",
            f"lost: bytes {ends[3]} to {ends[4] - 1}",
            f"applied, although after a fault: bytes {ends[4]} to {ends[-1] - 1}",
            "A sequence whose last record is lost is now at an earlier position.",
            f"Put it in place with: mv {bigfib.file}.repaired {bigfib.file}",
        ]
        assert bigfib.file.read_bytes() == harmed
        bigfib.file.with_name("state.log.repaired").rename(bigfib.file)
        assert bigfib.prints("current") == "55\n"
        assert bigfib.prints("log", "repair") == f"{bigfib.file}: needs no repair\n"

    def test_repair_quotes_the_command_to_paste(self, tmp_path: Path) -> None:
        file = tmp_path / "the 'state' log"
        bigfib = Command(file)
        with Log(file) as opened:
            for position in (1, 2):
                opened.note(b"shared", position)
                opened.commit()
        harmed = bytearray(file.read_bytes())
        harmed[opened.size // 2] ^= 1
        file.write_bytes(harmed)
        advice = bigfib.prints("log", "repair").splitlines()[-1].partition("with: ")[2]
        assert shlex.split(advice) == ["mv", f"{file}.repaired", str(file)]

    def test_dump_of_half_a_header_names_the_fault(self, bigfib: Command) -> None:
        bigfib.file.write_bytes(b"\x89big")
        assert "a header that is cut off" in bigfib.fails("log", "dump")

    def test_missing_log_is_refused(self, bigfib: Command) -> None:
        for command in (["verify"], ["dump"], ["compact"], ["repair"], ["backup", "copy"]):
            assert "there is no state log" in bigfib.fails("log", *command)


class TestBackup:
    def test_backup_beside_a_service_has_every_acknowledged_step(
        self, serve: Serve, bigfib: Command, tmp_path: Path
    ) -> None:
        service = serve()
        copy = tmp_path / "copy"
        for count in (3, 6):
            for _ in range(3):
                service.value("next")
            shown = bigfib.prints("log", "backup", str(copy))
            assert shown == f"{copy}: sequences 1, verified\n"
            assert reader.read(copy).position(SHARED) == count
        assert copy.stat().st_mode & 0o777 == 0o600
        assert service.value("next") == 13
        assert not copy.with_name("copy.new").exists()

    def test_backup_that_cannot_be_written_leaves_the_last_one(
        self, bigfib: Command, tmp_path: Path
    ) -> None:
        bigfib.prints("next")
        refusal = bigfib.fails("log", "backup", str(tmp_path / "none" / "copy"))
        assert "cannot write the backup" in refusal
        assert "No such file or directory" in refusal
        before = bigfib.file.read_bytes()
        assert "it is the log itself" in bigfib.fails("log", "backup", str(bigfib.file))
        assert bigfib.file.read_bytes() == before

    def test_backup_of_a_damaged_log_is_refused(self, bigfib: Command, tmp_path: Path) -> None:
        for _ in range(2):
            bigfib.prints("next")
        harmed = bytearray(bigfib.file.read_bytes())
        harmed[-1] ^= 1
        bigfib.file.write_bytes(harmed)
        copy = tmp_path / "copy"
        assert "is damaged" in bigfib.fails("log", "backup", str(copy))
        assert not copy.exists()
