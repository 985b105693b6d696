"""Expressions as text: the lines of a function in C++ or in Triton, every part that occurs twice once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from monai_segloss.core.counts import FORMULAS, Stat
from monai_segloss.core.expression import VOXEL, ZERO, Expression, slopes, split
from monai_segloss.kernels import native

FUNCTIONS = {
    "abs": "absolute",
    "sign": "sign",
    "min": "smaller",
    "max": "larger",
    "above": "above",
    "step": "step",
    "log1p": "log1p_",
    "where": "where",
}
"""Kind of an expression -> the function, of the same name in both languages."""


@dataclass
class Lines:
    """Assignments of a function body, and the name of each expression that has one."""

    number: Callable[[float], str]
    assign: str
    names: dict[Expression, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def name(self, x: Expression) -> str:
        """What stands for an expression after the lines."""
        if x.kind == "number":
            return self.number(float(x.value))
        if x.kind == "symbol":
            return str(x.value)
        if x not in self.names:
            text = self._text(x, [self.name(a) for a in x.args])
            self.names[x] = f"t{len(self.names)}"
            self.lines.append(self.assign.format(self.names[x], text))
        return self.names[x]

    def _text(self, x: Expression, args: list[str]) -> str:
        if x.kind in ("add", "mul"):
            return (" + " if x.kind == "add" else " * ").join(args)
        if x.kind == "pow":
            return f"raised({args[0]}, {float(x.value)!r})"
        return f"{FUNCTIONS[x.kind]}({', '.join(args)})"


@cache
def expression(formula: Callable[..., Expression], power: float) -> Expression:
    """A line of `FORMULAS` as an expression."""
    return formula(VOXEL, power)


def expressions(which: Sequence[Stat]) -> list[Expression]:
    """Those of statistics."""
    return [expression(FORMULAS[name], power) for name, power in which]


def complement(which: Sequence[Stat]) -> bool:
    """Whether log(1 - p) is in one of them."""
    return any(x.has(VOXEL.lq) for x in expressions(which))


def magnifies(found: Sequence[Expression]) -> bool:
    """Whether a power below 1 magnifies an error of log p near p = 1."""
    return any(((x.kind == "pow" and 0 < float(x.value) < 1) or magnifies(x.args)) for x in found)


Table = list[list[float]]


@dataclass(frozen=True)
class Part:
    """What is evaluated for a class: expressions, and for each statistic what multiples of them add up to it.

    The slopes, in log p, come before the pulls, in log(1 - p), in one table.
    """

    values: list[Expression]
    value_table: Table
    slopes: list[Expression]
    pulls: list[Expression]
    slope_table: Table


def part(found: Sequence[Expression], **g: float) -> Part:
    """That of some formulas, with a number in place of the target if it has one."""
    rows = [tuple(x.at(**g) for x in (formula, *slopes(formula))) for formula in found]
    values, value_table = _combine([[split(value)] for value, _, _ in rows])
    rises, rise_table = _combine([_terms(slope) for _, slope, _ in rows])
    pulls, pull_table = _combine([_terms(pull) for _, _, pull in rows])
    slope_table = [a + b for a, b in zip(rise_table, pull_table, strict=True)]
    return Part(values, value_table, rises, pulls, slope_table)


def _terms(x: Expression) -> list[tuple[float, Expression]]:
    return [split(term) for term in (x.args if x.kind == "add" else (x,))]


def _combine(rows: list[list[tuple[float, Expression]]]) -> tuple[list[Expression], Table]:
    rows = [[(factor, core) for factor, core in row if factor] for row in rows]
    cores = list(dict.fromkeys(core for row in rows for _, core in row))
    return cores, [[sum(factor for factor, x in row if x == core) for core in cores] for row in rows]


def triton(found: Sequence[Expression], hard: bool) -> tuple[str, bool]:
    """Two functions in Triton's Python, values and slopes of a set of statistics, and whether there are pulls.

    A ``hard`` target is a mask: where it holds the formulas are those at g = 1, elsewhere those at g = 0.
    """
    rows = [(formula, *slopes(formula)) for formula in found]
    if hard:
        rows = [tuple(_chosen(x.at(g=1), x.at(g=0)) for x in row) for row in rows]  # type: ignore[misc]
    lines = Lines(repr, "    {} = {}")
    values = [lines.name(value) if value.kind != "number" else f"p * 0 + {value.value}" for value, _, _ in rows]
    text = ["def values(p, q, lp, lq, g):", *lines.lines, f"    return ({''.join(f'{x}, ' for x in values)})"]
    lines = Lines(repr, "    {} = {}")
    sums = [
        " + ".join([f"factors[{i}][:, None] * {lines.name(x)}" for i, x in enumerate(column) if x != ZERO] or ["p * 0"])
        for column in ([slope for _, slope, _ in rows], [pull for _, _, pull in rows])
    ]
    text += ["", "", "def slopes(p, q, lp, lq, g, factors):", *lines.lines, f"    return {sums[0]}, {sums[1]}", ""]
    return "\n".join(text), any(pull != ZERO for _, _, pull in rows)


def _chosen(x: Expression, y: Expression) -> Expression:
    return x if x == y else Expression("where", (VOXEL.g, x, y))


BEFORE = {"softmax": 1, "sigmoid": 2, "none": 3}
"""What makes the probabilities p of a steep sigmoid(k (p - T))."""


def cpp(found: Sequence[Expression], activation: str, labels: bool, double: bool, steep: bool = False) -> str:
    """The source of the kernels of a set of statistics; ``steep`` ones are of sigmoid(k (p - T)) in place of p."""
    none: Table = [[] for _ in found]
    target = any(x.has(VOXEL.g) for x in found)  # else all classes are alike
    split_labels = labels and target
    each, true = (part(found, g=0), part(found, g=1)) if split_labels else (part(found), Part([], none, [], [], none))
    constants = {
        "BEFORE": BEFORE[activation] if steep else 0,
        "K": len(found),
        "TARGET": target,
        "LABELS": labels,
        "SOFTMAX": activation == "softmax" and not steep,
        "SHARP": magnifies(found),
        "LOG_Q": any(x.has(VOXEL.lq) for x in found),
        "PULLS": len(each.pulls) + len(true.pulls),
        "EACH": len(each.values),
        "TRUE": len(true.values),
        "EACH_SLOPES": len(each.slopes) + len(each.pulls),
        "TRUE_SLOPES": len(true.slopes) + len(true.pulls),
    }
    head = f"typedef {'double' if double else 'float'} T;\ntypedef {'int64_t' if double else 'int32_t'} I;\n"
    head += (
        f"#define SINGLE {int(not double)}\nenum {{ {', '.join(f'{k} = {int(v)}' for k, v in constants.items())} }};\n"
    )
    functions = [text for name, one in (("each", each), ("true", true)) for text in _cpp_part(name, one)]
    functions += [
        _cpp_table("VALUES", [a + b for a, b in zip(each.value_table, true.value_table, strict=True)]),
        _cpp_table("SLOPES", [a + b for a, b in zip(each.slope_table, true.slope_table, strict=True)]),
    ]
    template = native.source("threads", "statistics")
    return template.replace("//EMITTED CONSTANTS", head).replace("//EMITTED FUNCTIONS", "\n".join(functions))


def _cpp_part(name: str, one: Part) -> tuple[str, str]:
    voxel = ", ".join(f"V {symbol}" for symbol in VOXEL._fields)
    lines = Lines(lambda x: f"all(T({x!r}))", "  const V {} = {};")
    sums = [f"  out[{j}] = {lines.name(x)};" for j, x in enumerate(one.values)]
    values = [f"static inline void {name}_values({voxel}, V* out) {{", *lines.lines, *sums, "}"]
    lines = Lines(lines.number, lines.assign)
    terms = [f"factor[{j}] * {lines.name(x)}" for j, x in enumerate([*one.slopes, *one.pulls])]
    ends = [
        f"  {variable} = {' + '.join(['V{}', *some])};"
        for variable, some in (("slope", terms[: len(one.slopes)]), ("pull", terms[len(one.slopes) :]))
    ]
    head = f"template <class F> static inline void {name}_slopes({voxel}, const F* factor, V& slope, V& pull) {{"
    return "\n".join(values), "\n".join([head, *lines.lines, *ends, "}"])


def _cpp_table(name: str, table: Table) -> str:
    rows = ", ".join("{" + ", ".join(map(repr, [*row, 0.0])) + "}" for row in table)
    return f"static const double {name}[K][{len(table[0]) + 1}] = {{{rows}}};"
