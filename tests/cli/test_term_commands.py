"""The commands `term`, `terms` and `index`."""

import json
from pathlib import Path

import pytest
from flint import fmpz

from tests.cli.command import (
    Command,
    term,
)
from tests.service import Serve


class TestTerm:
    @pytest.mark.parametrize(
        ("n", "value"), [("0", "0"), ("10", "55"), ("-1", "1"), ("-6", "-8"), ("-7", "13")]
    )
    def test_term_of_either_sign_is_printed(self, bigfib: Command, n: str, value: str) -> None:
        assert bigfib.prints("term", n) == value + "\n"

    def test_term_of_twenty_thousand_digits_is_printed_whole(self, bigfib: Command) -> None:
        assert bigfib.prints("term", "100000") == f"{fmpz.fib_ui(fmpz(100_000))}\n"

    def test_json_has_index_digits_value_and_base(self, bigfib: Command) -> None:
        document = json.loads(bigfib.prints("term", "-6", "--json"))
        assert document == {"n": "-6", "digits": "1", "value": "-8"}
        document = json.loads(bigfib.prints("term", "10", "--base", "2", "--json"))
        assert document == {"n": "10", "digits": "6", "value": "110111", "base": "2"}

    def test_base_16_prints_hexadecimal_digits(self, bigfib: Command) -> None:
        assert bigfib.prints("term", "300", "--base", "16") == f"{int(fmpz.fib_ui(fmpz(300))):x}\n"

    def test_modulo_of_a_huge_index_prints_the_residue(self, bigfib: Command) -> None:
        # The Pisano period of 10 is 60, and 10^1000 = 40 mod 60: F(40) = 102334155.
        n = "1" + "0" * 1000
        assert bigfib.prints("term", n, "--modulo", "10") == "5\n"
        document = json.loads(bigfib.prints("term", n, "--modulo", "10", "--json"))
        assert document == {"n": n, "modulo": "10", "residue": "5"}

    def test_index_of_ten_thousand_digits_is_the_longest(self, bigfib: Command) -> None:
        n = "9" * 10_000
        assert "largest term computed in full is F(1000000000)" in bigfib.fails("term", n)
        # The index is 1 less than a multiple of 20, the Pisano period of 5: F(19) = 4181.
        assert bigfib.prints("term", n, "--modulo", "5") == "1\n"
        assert "at most 10000 digits" in bigfib.fails("term", n + "9", "--modulo", "5")

    def test_terms_are_printed_one_a_line_in_each_form(self, bigfib: Command) -> None:
        shown = bigfib.prints("terms", "-6", "10").split()
        assert list(map(int, shown)) == [-8, 5, -3, 2, -1, 1, 0, 1, 1, 2]
        assert bigfib.prints("terms", "300", "1", "--bfile") == f"300 {term(300)}\n"
        documents = bigfib.prints("terms", "-2", "2", "--json").splitlines()
        assert documents == [
            '{"n":"-2","digits":"1","value":"-1"}',
            '{"n":"-1","digits":"1","value":"1"}',
        ]
        assert bigfib.fails("terms", "0", "0").startswith("2: bigfib: COUNT is")

    def test_summary_prints_digit_count_and_ends(self, bigfib: Command) -> None:
        whole = str(fmpz.fib_ui(fmpz(12_345)))
        size = (int(fmpz.fib_ui(fmpz(12_345))).bit_length()) // 8 + 1
        assert bigfib.prints("term", "12345", "--summary").splitlines() == [
            "n: 12345",
            f"digits: {len(whole)}",
            f"leading: {whole[:20]}",
            f"trailing: {whole[-20:]}",
            f"bytes: {size}",
        ]
        document = json.loads(bigfib.prints("term", "-6", "--summary", "--json"))
        assert document == {
            "n": "-6",
            "digits": "1",
            "leading": "-8",
            "trailing": "8",
            "bytes": "1",
        }

    def test_output_file_is_replaced_whole(self, bigfib: Command, tmp_path: Path) -> None:
        target = tmp_path / "term.txt"
        for n in (100_000, 1000):
            assert bigfib.prints("term", str(n), "-o", str(target)) == ""
            assert target.read_text() == f"{fmpz.fib_ui(fmpz(n))}\n"
        assert [entry.name for entry in tmp_path.iterdir()] == ["term.txt"]
        assert bigfib.prints("term", "10", "-o", "/dev/stdout") == "55\n"

    def test_output_to_a_link_keeps_link_and_mode(self, bigfib: Command, tmp_path: Path) -> None:
        target, link = tmp_path / "target", tmp_path / "link"
        target.touch()
        target.chmod(0o640)
        link.symlink_to(target)
        bigfib.prints("term", "10", "-o", str(link))
        assert link.is_symlink()
        assert target.read_text() == "55\n"
        assert target.stat().st_mode & 0o777 == 0o640

    @pytest.mark.parametrize("stale", ["ln -s ../elsewhere", "mkfifo", "touch"])
    def test_output_replaces_what_has_its_temporary_name(
        self, bigfib: Command, tmp_path: Path, stale: str
    ) -> None:
        target = tmp_path / "directory" / "term"
        target.parent.mkdir()
        bigfib.before = ["sh", "-c", f'{stale} {target}.$$.part; exec "$@"', "sh"]
        assert bigfib.prints("term", "10", "-o", str(target)) == ""
        assert target.read_text() == "55\n"
        assert not target.is_symlink()
        assert [entry.name for entry in tmp_path.iterdir()] == ["directory"]

    def test_into_standard_output_by_its_common_name(
        self, bigfib: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert bigfib.prints("term", "10", "-o", "-") == "55\n"
        assert bigfib.prints("terms", "10", "2", "-o", "-") == "55\n89\n"
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("target", ["/nowhere/x", "/proc/x", "."])
    def test_output_that_cannot_be_written_is_refused(self, bigfib: Command, target: str) -> None:
        assert "cannot write" in bigfib.fails("term", "10", "-o", target)

    def test_term_into_a_full_file_system_fails_with_the_reason(self, bigfib: Command) -> None:
        assert "No space left on device" in bigfib.fails("term", "100000", "-o", "/dev/full")

    @pytest.mark.parametrize("n", ["0", "7", "16", "17", "-16", "-17", "18", "100", "-100", "4790"])
    def test_group_puts_commas_between_thousands(self, bigfib: Command, n: str) -> None:
        # The sign follows from F(-n) = (-1)^(n+1) F(n).
        value = int(fmpz.fib_ui(fmpz(abs(int(n)))))
        negative = int(n) < 0 and int(n) % 2 == 0
        expected = f"{-value if negative else value:,}\n"
        assert bigfib.prints("term", n, "--group") == expected
        assert bigfib.prints("terms", n, "1", "--group") == expected

    def test_group_of_a_large_term_has_its_digits_in_threes(
        self, bigfib: Command, tmp_path: Path
    ) -> None:
        n = 7_000_000
        digits = fmpz.fib_ui(fmpz(n)).str(base=10)
        bigfib.prints("term", f"-{n}", "--group", "-o", str(tmp_path / "term"))
        groups = (tmp_path / "term").read_text().removeprefix("-").rstrip("\n").split(",")
        assert "".join(groups) == digits
        assert {len(group) for group in groups[1:]} == {3}
        assert len(groups[0]) == (len(digits) - 1) % 3 + 1

    def test_group_of_other_bases_and_of_sequences(self, bigfib: Command) -> None:
        in_base_2 = bigfib.prints("term", "30", "--base", "2", "--group")
        assert in_base_2 == "11,001,011,001,000,101,000\n"  # 832040
        assert bigfib.prints("term", "30", "--modulo", "1000000", "--group") == "832,040\n"
        assert bigfib.prints("next", "--by", "17", "--group") == "1,597\n"
        assert bigfib.prints("current", "--group") == "1,597\n"
        document = json.loads(bigfib.prints("current", "--group", "--json"))
        assert document["value"] == "1597"
        assert "not allowed with" in bigfib.fails("terms", "0", "9", "--bfile", "--group")

    @pytest.mark.parametrize("n", [4790, 4791, 4792, 4793, 4796, 4802, -4790])
    def test_group_on_a_terminal_keeps_the_groups_at_both_ends(
        self, bigfib: Command, n: int
    ) -> None:
        value = int(fmpz.fib_ui(fmpz(abs(n))))
        whole = f"{-value if n < 0 else value:,}"
        first, _, rest = bigfib.on_terminal("term", "--group", f"{n}").partition("...")
        last = rest.partition(" ")[0]
        assert whole.startswith(f"{first},")
        assert whole.endswith(f",{last}")
        assert (len(last), 49 <= len(first.lstrip("-")) <= 51) == (51, True)
        assert f"({len(str(value))} digits; --full" in rest


class TestIndex:
    @pytest.mark.parametrize(
        ("value", "shown"),
        [("0", "0"), ("1", "1\n2"), ("2", "3"), ("-8", "-6"), (term(300), "300")],
    )
    def test_index_of_a_term_is_printed(self, bigfib: Command, value: str, shown: str) -> None:
        assert bigfib.prints("index", value) == f"{shown}\n"

    def test_index_of_what_is_no_term_names_its_neighbours(self, bigfib: Command) -> None:
        assert (
            "1: bigfib: it is not a Fibonacci number: it is between F(10) and F(11)"
            in bigfib.fails("index", "56")
        )
        assert bigfib.fails("index", "x").startswith("2: bigfib: 'x' is not a value")

    def test_index_of_a_file_of_digits_is_printed(self, bigfib: Command, serve: Serve) -> None:
        digits = term(100_000)
        service = ["--url", serve().url]
        for arguments in (["-"], ["-", *service]):
            done = bigfib("index", *arguments, stdin=f"{digits}\n")
            assert (done.stdout, done.stderr) == ("100000\n", "")
        assert json.loads(bigfib.prints("index", "1", "--json", *service)) == {
            "value": "1",
            "n": ["1", "2"],
        }
        assert "between F(10) and F(11)." in bigfib.fails("index", "56", *service)


@pytest.mark.parametrize("written", ["1e3", "1,000", "1_000", "10^3"])
def test_numbers_are_read_as_people_write_them(bigfib: Command, written: str) -> None:
    assert bigfib.prints("term", written) == f"{term(1000)}\n"
    assert bigfib.prints("term", "10^20", "--modulo", written) == bigfib.prints(
        "term", str(10**20), "--modulo", "1000"
    )
    assert bigfib.prints("terms", written, "1e0") == f"{term(1000)}\n"
    assert bigfib.prints("index", "354,224,848,179,261,915,075") == "100\n"
    assert bigfib.prints("seek", written) == f"{term(1000)}\n"
    assert bigfib.prints("p", "--by", written) == "0\n"
