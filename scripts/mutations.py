"""One-line changes of Python code that a test should notice: found in the syntax tree, drawn at random."""

from __future__ import annotations

import ast
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

COMPARISONS = {
    "<": ("<=", ">"), "<=": ("<", ">="), ">": (">=", "<"), ">=": (">", "<="), "==": ("!=",), "!=": ("==",),
    "is": ("is not",), "is not": ("is",), "in": ("not in",), "not in": ("in",),
}  # fmt: skip
OPERATORS = {
    "+": "-", "-": "+", "*": "/", "/": "*", "//": "*", "%": "*", "**": "*", "&": "|", "|": "&", "<<": ">>", ">>": "<<",
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor"}


@dataclass(frozen=True)
class Mutation:
    """Bytes start..stop of a file become `text`. executed: lines of which a test must execute one to meet it; none
    where it is met on import."""

    path: Path
    line: int
    start: int
    stop: int
    text: str
    executed: tuple[int, ...]

    def applied(self) -> bytes:
        """The file's content with the change."""
        source = self.path.read_bytes()
        return source[: self.start] + self.text.encode() + source[self.stop :]


def choose(paths: Sequence[Path], number: int, rng: random.Random) -> list[Mutation]:
    """So many mutations, each on a line of its own, in the order of the files; fewer where there are no more."""
    by_line: dict[tuple[Path, int], list[Mutation]] = defaultdict(list)
    for path in paths:
        for mutation in Finder(path).found:
            by_line[path, mutation.line].append(mutation)
    chosen: list[Mutation] = []
    for place in rng.sample(sorted(by_line), len(by_line)):
        mutation = rng.choice(by_line[place])
        if len(chosen) < number and _compiles(mutation.applied()):
            chosen.append(mutation)
    return sorted(chosen, key=lambda mutation: (mutation.path, mutation.line))


class Finder(ast.NodeVisitor):
    """Collects the mutations of one file in `found`."""

    def __init__(self, path: Path) -> None:
        self.path, self.source = path, path.read_bytes()
        self.starts = [0, *(match.end() for match in re.finditer(b"\n", self.source))]
        self.found: list[Mutation] = []
        self.statement = 1
        self.called = False  # whether the code here runs when a function is called, not on import
        self.visit(ast.parse(self.source))

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.JoinedStr | ast.Assert):  # texts, and what is there for the type checker
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        outer = self.statement
        if isinstance(node, ast.stmt):
            self.statement = node.lineno
        getattr(self, f"on_{type(node).__name__}", lambda _: None)(node)
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            self.enter(node)
        else:
            for name, value in ast.iter_fields(node):
                if name != "annotation":
                    self.visit_all(value if isinstance(value, list) else [value])
        self.statement = outer

    def visit_all(self, nodes: Sequence[object]) -> None:
        for node in nodes:
            if isinstance(node, ast.AST):
                self.visit(node)

    def enter(self, node: ast.FunctionDef | ast.Lambda) -> None:
        """Decorators and defaults run where the function is made, its body when it is called."""
        self.visit_all([*getattr(node, "decorator_list", []), *node.args.defaults, *node.args.kw_defaults])
        outer, self.called = self.called, True
        self.visit_all(node.body if isinstance(node.body, list) else [node.body])
        self.called = outer

    def on_Compare(self, node: ast.Compare) -> None:
        for left, right in zip([node.left, *node.comparators], node.comparators, strict=False):
            self.between(left, right, COMPARISONS)

    def on_BinOp(self, node: ast.BinOp) -> None:
        self.between(node.left, node.right, {old: (new,) for old, new in OPERATORS.items()})

    def on_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.between(left, right, {"and": ("or",), "or": ("and",)})

    def on_AugAssign(self, node: ast.AugAssign) -> None:
        self.between(node.target, node.value, {f"{old}=": (f"{new}=",) for old, new in OPERATORS.items()})

    def on_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.USub):
            self.add(node, self.start(node), self.start(node.operand), "")

    def on_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.replace(node, str(not node.value))
        elif isinstance(node.value, int | float):
            self.replace(node, repr(node.value + 1))
            self.replace(node, repr(node.value - 1))

    def on_Call(self, node: ast.Call) -> None:
        name = self.text(node.func)
        prefix, dot, last = name.rpartition(".")
        if last in NAMES:
            self.replace(node.func, f"{prefix}{dot}{NAMES[last]}")
        if name == "range":
            self.off_by_one(node.args[-1])

    def on_Slice(self, node: ast.Slice) -> None:
        for bound in filter(None, (node.lower, node.upper)):
            self.off_by_one(bound)

    def on_If(self, node: ast.If | ast.While | ast.IfExp) -> None:
        self.negate(node.test)

    on_While = on_IfExp = on_If

    def on_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self.negate(test)

    def negate(self, test: ast.expr) -> None:
        self.replace(test, f"(not ({self.text(test)}))")

    def off_by_one(self, node: ast.expr) -> None:
        if not isinstance(node, ast.Constant):
            self.replace(node, f"{self.text(node)} + 1")

    def start(self, node: ast.expr) -> int:
        return self.starts[node.lineno - 1] + node.col_offset

    def stop(self, node: ast.expr) -> int:
        return self.starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)

    def text(self, node: ast.expr) -> str:
        return self.source[self.start(node) : self.stop(node)].decode()

    def replace(self, node: ast.expr, text: str) -> None:
        self.add(node, self.start(node), self.stop(node), text)

    def between(self, left: ast.expr, right: ast.expr, changes: dict[str, tuple[str, ...]]) -> None:
        """Change the operator between two expressions; parentheses and line ends may stand around it."""
        begin = self.stop(left)
        match = re.search(rb"is not\b|not in\b|[^\s()#]+", self.source[begin : self.start(right)])
        if match is not None:
            for new in changes.get(match[0].decode(), ()):
                self.add(left, begin + match.start(), begin + match.end(), new)

    def add(self, node: ast.expr, start: int, stop: int, text: str) -> None:
        if b"\n" in self.source[start:stop]:
            return
        line = self.source.count(b"\n", 0, start) + 1
        executed = {line, self.statement, *range(node.lineno, (node.end_lineno or node.lineno) + 1)}
        lines = tuple(sorted(executed)) if self.called else ()
        self.found.append(Mutation(self.path, line, start, stop, text, lines))


def _compiles(source: bytes) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True
