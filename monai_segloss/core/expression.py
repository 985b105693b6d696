"""A formula as an expression, from which its derivatives and its values for labels follow.

The methods of an `Expression` have the names of those of a tensor, so one line of Python is both: called with tensors it is
the definition, called with `VOXEL` it is what the kernels are made from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

Scalar = float | int


@dataclass(frozen=True)
class Expression:
    """A number, a symbol, or an operation on expressions.

    ``kind`` is number, symbol, add, mul, pow, abs, sign, min, max, above (1 where x > y, else 0), step (the same, 1/2 where
    they are equal), log1p or where.  Operators simplify: what is multiplied by 0 is gone, 1 - p is q.
    """

    kind: str
    args: tuple[Expression, ...] = ()
    value: float | str = 0.0

    def __add__(self, other: Expression | Scalar) -> Expression:
        return _add(self, _expression(other))

    def __mul__(self, other: Expression | Scalar) -> Expression:
        return _mul(self, _expression(other))

    def __sub__(self, other: Expression | Scalar) -> Expression:
        return self + -1 * _expression(other)

    def __rsub__(self, other: Scalar) -> Expression:
        return _expression(other) - self

    def __neg__(self) -> Expression:
        return -1 * self

    def __truediv__(self, other: Expression | Scalar) -> Expression:
        return self * _expression(other) ** -1

    def __rtruediv__(self, other: Scalar) -> Expression:
        return other * self**-1

    def __pow__(self, exponent: Scalar) -> Expression:
        return _pow(self, float(exponent))

    __radd__, __rmul__ = __add__, __mul__

    def abs(self) -> Expression:
        """|x|."""
        coefficient, rest = split(self)
        return abs(coefficient) * (rest if rest.at_least_0 else Expression("abs", (rest,)))

    def square(self) -> Expression:
        """x^2."""
        return self**2

    def log1p(self) -> Expression:
        """log(1 + x)."""
        return Expression("log1p", (self,))

    def minimum(self, other: Expression | Scalar) -> Expression:
        """The smaller one."""
        other = _expression(other)
        if other == ZERO and self.at_least_0:
            return ZERO
        return self if other == ONE and self in (VOXEL.p, VOXEL.q) else Expression("min", (self, other))

    def clamp_min(self, least: Scalar) -> Expression:
        """The larger one of x and a number."""
        if least == 0 and self.at_least_0:
            return self
        return ZERO if least == 0 and (-self).at_least_0 else Expression("max", (self, _expression(least)))

    @property
    def at_least_0(self) -> bool:
        """Whether it is known not to be negative; p, q and g are not."""
        if self.kind == "number":
            return float(self.value) >= 0
        if self.kind == "symbol":
            return self.value in ("p", "q", "g")
        return self.kind in ("abs", "above", "step") or (
            self.kind in ("add", "mul", "pow", "min", "where") and all(x.at_least_0 for x in self.args)
        )

    def diff(self, variable: Expression) -> Expression:
        """The partial derivative in a symbol."""
        if self.kind in ("number", "symbol"):
            return ONE if self == variable else ZERO
        inner = [x.diff(variable) for x in self.args]
        return sum((_outer(self, i) * slope for i, slope in enumerate(inner) if slope != ZERO), ZERO)

    def at(self, **values: Scalar) -> Expression:
        """With numbers in place of symbols."""
        if self.kind == "symbol":
            return _expression(values[str(self.value)]) if self.value in values else self
        args = [x.at(**values) for x in self.args]
        return BUILD[self.kind](self, *args) if args else self

    def has(self, *symbols: Expression) -> bool:
        """Whether one of the symbols is in it."""
        return self in symbols or any(x.has(*symbols) for x in self.args)


class Voxel(NamedTuple):
    """Probability, 1 - p, their logarithms and target as symbols."""

    p: Expression
    q: Expression
    lp: Expression
    lq: Expression
    g: Expression


VOXEL = Voxel(*(Expression("symbol", value=name) for name in Voxel._fields))
ZERO, ONE = Expression("number", value=0.0), Expression("number", value=1.0)


def split(x: Expression) -> tuple[float, Expression]:
    """A number and the expression that it multiplies."""
    if x.kind == "number":
        return float(x.value), ONE
    if x.kind == "mul" and x.args[0].kind == "number":
        first, *rest = x.args
        return float(first.value), rest[0] if len(rest) == 1 else Expression("mul", tuple(rest))
    return 1.0, x


def slopes(formula: Expression) -> tuple[Expression, Expression]:
    """The derivative in log p through p, 1 - p and log p, and that in log(1 - p), whose own gradient is kept apart."""
    p, q, lp, lq, _ = VOXEL
    return p * (formula.diff(p) - formula.diff(q)) + formula.diff(lp), formula.diff(lq)


def _expression(x: Expression | Scalar) -> Expression:
    return x if isinstance(x, Expression) else Expression("number", value=float(x))


def _add(*terms: Expression) -> Expression:
    found: dict[Expression, float] = {}
    for term in terms:
        for each in term.args if term.kind == "add" else (term,):
            coefficient, rest = split(each)
            found[rest] = found.get(rest, 0.0) + coefficient
    for one, other in ((VOXEL.p, VOXEL.q), (VOXEL.q, VOXEL.p)):
        if set(found) == {one, ONE} and found[one] == -found[ONE]:  # 1 - p is q, exactly
            return found[ONE] * other
    args = tuple(_mul(_expression(x), rest) for rest, x in found.items() if x)
    return (args or (ZERO,))[0] if len(args) < 2 else Expression("add", args)


def _mul(*factors: Expression) -> Expression:
    number, powers = 1.0, dict[Expression, float]()
    for factor in factors:
        for each in factor.args if factor.kind == "mul" else (factor,):
            if each.kind == "number":
                number *= float(each.value)
            else:
                base, exponent = (each.args[0], float(each.value)) if each.kind == "pow" else (each, 1.0)
                powers[base] = powers.get(base, 0.0) + exponent
    args = [x for base, exponent in powers.items() if (x := _pow(base, exponent)) != ONE]
    if number == 0 or not args:
        return _expression(number)
    args = args if number == 1 else [_expression(number), *args]
    return args[0] if len(args) == 1 else Expression("mul", tuple(args))


def _pow(x: Expression, exponent: float) -> Expression:
    if exponent in (0, 1):
        return x if exponent else ONE
    coefficient, rest = split(x)
    if rest == ONE:
        return _expression(coefficient**exponent) if coefficient or exponent > 0 else Expression("pow", (x,), exponent)
    if coefficient != 1 and exponent.is_integer():
        return coefficient**exponent * _pow(rest, exponent)
    return Expression("pow", (x,), exponent)


def _sign(x: Expression) -> Expression:
    coefficient, rest = split(x)
    sign = float((coefficient > 0) - (coefficient < 0))
    return sign * (ONE if rest.at_least_0 else Expression("sign", (rest,)))


def _above(x: Expression, y: Expression) -> Expression:
    if y == ZERO and (x.at_least_0 or (-x).at_least_0):
        return ONE if x.at_least_0 else ZERO
    return Expression("above", (x, y))


def _step(x: Expression, y: Expression) -> Expression:
    if {x, y} <= {ZERO, ONE, VOXEL.p, VOXEL.q} and len({x, y} & {ZERO, ONE}) == 1:
        return ONE if x == ONE or y == ZERO else ZERO
    return Expression("step", (x, y))


def _outer(x: Expression, i: int) -> Expression:
    """The derivative of an operation in its argument ``i``."""
    a = x.args
    if x.kind == "add":
        return ONE
    if x.kind == "mul":
        return _mul(ONE, *a[:i], *a[i + 1 :])
    if x.kind == "pow":
        return float(x.value) * a[0] ** (float(x.value) - 1)
    if x.kind == "abs":
        return _sign(a[0])
    if x.kind == "log1p":
        return 1 / (1 + a[0])
    if x.kind == "min":
        return _step(a[1 - i], a[i])
    return _above(a[0], a[1]) if x.kind == "max" else ZERO  # sign, above and step are flat


BUILD: dict[str, Callable[..., Expression]] = {
    "add": lambda self, *args: _add(*args),
    "mul": lambda self, *args: _mul(*args),
    "pow": lambda self, x: _pow(x, self.value),
    "abs": lambda self, x: x.abs(),
    "log1p": lambda self, x: x.log1p(),
    "min": lambda self, x, y: x.minimum(y),
    "max": lambda self, x, y: x.clamp_min(y.value),
    "sign": lambda self, x: _sign(x),
    "above": lambda self, x, y: _above(x, y),
    "step": lambda self, x, y: _step(x, y),
}
