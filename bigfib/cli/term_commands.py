"""Define ``term``, ``terms`` and ``index``, which touch no sequence."""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from gmpy2 import mpz

from bigfib import terms
from bigfib.cli import large_terms
from bigfib.cli.arguments import add_command, add_output, add_url, as_people_write, complete
from bigfib.cli.output import (
    Failure,
    answer_to,
    as_json,
    grouped,
    print_json,
    shortened,
    with_commas,
)
from bigfib.numbers import fibonacci
from bigfib.numbers.fibonacci import InvalidIndex, parse_index

if TYPE_CHECKING:
    from bigfib.cli.arguments import Commands


# Bytes of the longest term, its sign and a line break, and one more to notice a longer value.
_LONGEST_VALUE: Final = 208_987_643


def add_to(commands: "Commands") -> None:
    """Add the commands."""
    term = add_command(commands, "term", _term, "Print F(N) for any N; touches no sequence.")
    term.add_argument("n", metavar="N", help="the index: a whole number, may be negative")
    kind = term.add_mutually_exclusive_group()
    kind.add_argument("--modulo", metavar="M", help="print F(N) mod M instead; N may be huge")
    kind.add_argument(
        "--summary", action="store_true", help="print only digit count and ends; N may be huge"
    )
    kind.add_argument("--base", type=_base, default=10, help="write F(N) in base 2 to 62")
    row = add_command(
        commands, "terms", _terms, "Print consecutive terms, one a line; touches no sequence."
    )
    row.add_argument("first", metavar="FROM", help="the index of the first term, may be negative")
    row.add_argument("count", metavar="COUNT", help="the number of terms")
    form = row.add_mutually_exclusive_group()
    form.add_argument(
        "--bfile",
        action="store_true",
        help="print each after its index, as in a b-file of the OEIS",
    )
    form.add_argument("--json", action="store_true", help="print a JSON document for each term")
    form.add_argument("--group", action="store_true", help="group the digits of each by commas")
    index = add_command(
        commands, "index", _index, "Print the index of the term that has this value."
    )
    index.add_argument("value", metavar="VALUE", help="a whole number; - reads it from stdin")
    index.add_argument("--json", action="store_true", help="print a JSON document")
    add_url(index)
    for parser in (term, row):
        add_url(parser)
        output = parser.add_argument(
            "-o",
            "--output",
            type=Path,
            metavar="FILE",
            help="write to FILE; - is standard output",
        )
        complete(output, "FILE")
    add_output(term)


def _base(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 2 and 2 <= int(text) <= 62:
        return int(text)
    raise argparse.ArgumentTypeError("a base is a number from 2 to 62")


def _term(command: argparse.Namespace) -> None:
    n = parse_index(as_people_write(command.n))
    # Open the file first, to fail before the computation if it cannot be written.
    with answer_to(command.output) as file:
        if command.summary or command.modulo is not None:
            document = _facts(command, n)
            if command.json:
                print_json(document, file)
            elif command.summary:
                print("\n".join(f"{name}: {value}" for name, value in document.items()), file=file)
            else:
                residue = shortened(document["residue"], command.full, command.group, file)
                print(residue, file=file)
            return
        if command.url is None:
            pieces = _computed(command, n)
        else:
            media_type = "application/json" if command.json else "text/plain"
            pieces = large_terms.requested(command.url, n, command.base, media_type)
        if file.isatty() and not command.json:
            pieces = iter([shortened("".join(pieces), command.full, command.group, file)])
        elif command.group and not command.json:
            pieces = grouped(pieces, int(fibonacci.digit_count(n, command.base)))
        for piece in pieces:
            file.write(piece)
        file.write("\n")


def _facts(command: argparse.Namespace, n: mpz) -> dict[str, str]:
    """Return the summary of F(n), or its residue."""
    modulus = None if command.summary else terms.parse_modulus(as_people_write(command.modulo))
    if command.url is not None:
        from bigfib.client import Client

        client = Client(command.url)
        if modulus is None:
            return client.summary(n)
        residue = client.residue(n, modulus)
    elif modulus is None:
        return terms.summary(n)
    else:
        residue = str(fibonacci.residue(n, modulus))
    return {"n": str(n), "modulo": str(modulus), "residue": residue}


def _computed(command: argparse.Namespace, n: mpz) -> Iterator[str]:
    """Yield F(n), or its JSON document, in pieces, so that memory holds the term only once."""
    digits = large_terms.digits(n, command.base)
    if not command.json:
        yield from digits
        return
    size = fibonacci.digit_count(n, command.base)
    yield f'{{"n":"{n}","digits":"{size}","value":"'
    yield from digits
    yield '"}' if command.base == 10 else f'","base":"{command.base}"}}'


def _index(command: argparse.Namespace) -> None:
    text = command.value
    if text == "-":
        text = sys.stdin.buffer.read(_LONGEST_VALUE).decode("ascii", "replace").strip()
    value = fibonacci.parse_value(as_people_write(text))
    if command.url is not None:
        from bigfib.client import Client

        indices = Client(command.url).index(value)
    else:
        try:
            indices = terms.indices(value, lambda n: "".join(large_terms.digits(mpz(n))).encode())
        except terms.NotATerm as error:
            raise Failure(str(error)) from None
    found = [str(n) for n in indices]
    if command.json:
        print_json({"value": value, "n": found})
    else:
        print("\n".join(found))


def _terms(command: argparse.Namespace) -> None:
    first, count = (parse_index(as_people_write(n)) for n in (command.first, command.count))
    if count < 1:
        raise InvalidIndex("COUNT is the number of terms, at least 1")
    with answer_to(command.output) as file:
        if command.url is None:
            write = _line(command)
            for n, value in terms.walk(int(first), int(count), large_terms.pair(abs(int(first)))):
                file.write(write(n, value))
            return
        from bigfib.client import Client

        form: Literal["bfile", "json", "text"]
        form = "bfile" if command.bfile else "json" if command.json else "text"
        for line in Client(command.url).terms(first, count, form):
            print(with_commas(line) if command.group else line, file=file)


def _line(command: argparse.Namespace) -> Callable[[int, bytes], str]:
    """Return the function that formats a line of `terms`."""

    def write(n: int, value: bytes) -> str:
        digits = value.decode()
        if command.json:
            size = str(len(digits.lstrip("-")))
            return f"{as_json({'n': str(n), 'digits': size, 'value': digits})}\n"
        if command.group:
            digits = with_commas(digits)
        return f"{n} {digits}\n" if command.bfile else f"{digits}\n"

    return write
