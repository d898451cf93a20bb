"""Numbers as people write them, read as by the page (`tests/page/test_numbers.py`)."""

import pytest

from bigfib.numbers import notation
from bigfib.numbers.fibonacci import InvalidIndex, parse_index
from tests.numbers.notations import NOT_READ, READ


@pytest.mark.parametrize("written", READ, ids=range(len(READ)))
def test_what_people_write_is_read(written: str) -> None:
    assert notation.read(written) == READ[written]


@pytest.mark.parametrize("written", NOT_READ, ids=range(len(NOT_READ)))
def test_what_is_no_whole_number_is_not_read(written: str) -> None:
    assert notation.read(written) is None


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("1e6", "write 1000000"),
        ("1_000", "write 1000"),
        ("+5", "write a whole number"),
        ("1e99", "write a whole number"),
    ],
)
def test_refusal_of_an_index_names_its_canonical_form(written: str, said: str) -> None:
    with pytest.raises(InvalidIndex, match=f"is not an index; {said}"):
        parse_index(written)
