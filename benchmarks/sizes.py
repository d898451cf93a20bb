"""Define the lengths of terms that are measured."""

from collections.abc import Container
from typing import Final

import pytest

POSITIONS: Final = {
    10: 48,
    1_000: 4_785,
    10_000: 47_848,
    100_000: 478_496,
    208_988: 1_000_000,
    1_000_000: 4_784_972,
    2_089_877: 10_000_000,
}
"""By number of digits, a position whose term has as many."""

QUICK: Final = (10, 1_000, 100_000, 1_000_000)


def label(digits: int) -> str:
    """Return a short name for a number of digits: 10, 209k, 2.1M."""
    if digits < 1000:
        return str(digits)
    if digits < 1_000_000:
        return f"{digits / 1000:.0f}k"
    return f"{digits / 1_000_000:.2g}M"


def by_digits(most: int = max(POSITIONS), quick: Container[int] = QUICK) -> pytest.MarkDecorator:
    """Return the mark that measures lengths up to ``most`` digits, in a quick run ``quick``."""
    return pytest.mark.parametrize(
        "digits",
        [
            pytest.param(
                digits, id=label(digits), marks=[] if digits in quick else [pytest.mark.full]
            )
            for digits in POSITIONS
            if digits <= most
        ],
    )
