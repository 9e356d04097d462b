"""The number formats of the pages."""

import math


def number(value: float) -> str:
    """A number of three significant digits: `0.0910`, `9.11e-3`, `1.20e5`, or whole: `2,376`."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0 or 1000 <= abs(value) < 1e4:
        return f"{value:,.0f}"
    if 0.01 <= abs(value) < 1000:
        return f"{value:#.3g}".removesuffix(".")
    return scientific(value)


def scientific(value: float) -> str:
    """A number of three significant digits, in one style for a whole column: `9.11e-3`."""
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def percent(share: float) -> str:
    """A share as a percentage; it reads 0% or 100% only for nothing or all."""
    if 0 < share < 0.01:
        return "<1%"
    return ">99%" if 0.99 < share < 1 else f"{share:.0%}"


def counted(part: float, whole: float, what: str) -> str:
    """A count with its share: `1,240 of 4,000 steps (31%)`."""
    return f"{part:,.0f} of {whole:,.0f} {what} ({percent(part / whole)})"


def signed(value: float, style: str) -> str:
    """A number with a minus sign instead of a hyphen, in a format such as `z.2f`."""
    return f"{value:{style}}".replace("-", "−")
