"""Tables: an independent computation in plain Python, and files that nobody has seen before."""

import csv
import io
import random
import re
from collections import defaultdict
from fractions import Fraction


def rows_of(content: bytes) -> list[dict]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def means_by(content: bytes, category: str, number: str) -> dict[str, float]:
    """Mean of a column for each value of another one, computed exactly."""
    groups: dict[str, list[Fraction]] = defaultdict(list)
    for row in rows_of(content):
        groups[row[category]].append(Fraction(row[number]))
    return {name: float(sum(values) / len(values)) for name, values in groups.items()}


def sums_by(content: bytes, category: str, number: str) -> dict[str, float]:
    totals: dict[str, Fraction] = defaultdict(Fraction)
    for row in rows_of(content):
        totals[row[category]] += Fraction(row[number])
    return {name: float(value) for name, value in totals.items()}


def numbers_in(text: str) -> list[float]:
    """Every figure of a text; thousands may be set apart by commas."""
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    return [float(match) for match in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])", plain)]


def is_among(value: float, figures: list[float], digits: int = 2) -> bool:
    """Is the value there, if only to so many digits?"""
    return any(abs(value - figure) <= 0.5000001 * 10 ** -digits for figure in figures)


def figures_of(value) -> list[float]:
    """Every number inside a JSON value."""
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, (int, float)):
        return [float(value)]
    if isinstance(value, str):
        return numbers_in(value)
    children = value.values() if isinstance(value, dict) else value
    return [figure for child in children for figure in figures_of(child)]


def generate(seed: int, category: str, values: list[str], number: str, *, rows: int, low: float, high: float, digits: int,
             more: dict[str, list[str]] | None = None) -> bytes:
    """A CSV with a category, a number and other columns, always the same for one seed."""
    chance = random.Random(seed)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", category, *(more or {}), number])
    for index in range(rows):
        value = round(chance.uniform(low, high), digits)
        others = [chance.choice(choices) for choices in (more or {}).values()]
        writer.writerow([f"row-{index}", chance.choice(values), *others, f"{value:.{digits}f}"])
    return out.getvalue().encode()
