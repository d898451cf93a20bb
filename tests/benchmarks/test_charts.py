"""The two charts of the README have the same numbers, readable on a light and on a dark page."""

import re

from benchmarks import charts
from benchmarks.__main__ import DARK_PICTURE, PICTURE

GROUND = "#0d1117"
GRID = "#30363d"


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour (WCAG 2.1)."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_dark_chart_shows_the_numbers_of_the_light_one() -> None:
    assert charts.darkened(PICTURE.read_text()) == DARK_PICTURE.read_text()


def test_letters_and_lines_of_the_dark_chart_have_contrast_with_its_ground() -> None:
    svg = DARK_PICTURE.read_text()
    assert f"fill: {GROUND}" in svg
    letters = re.match(r'<svg fill="(#\w{6})"', svg)
    assert letters
    assert contrast(letters[1], GROUND) > 7
    lines = set(re.findall(r"stroke: (#\w{6})", svg)) - {GRID}
    assert len(lines) >= 5
    for colour in lines:
        assert contrast(colour, GROUND) >= 3, colour
