"""Editing a program by its structure while its text, comments and layout stay as they are.

A Draft finds places in the syntax tree and collects splices of the text. Patterns are Python: in
`x = x + _branch` names that begin with an underscore stand for any expression. Edits therefore still find their
place after other edits, and say so (NotApplicable) when it is gone.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Literal = int | float | tuple[float, ...] | str


class NotApplicable(Exception):
    """The edit does not fit this program."""


@dataclass(frozen=True)
class Match:
    """A node that fits a pattern, with what its wildcards stand for."""

    node: ast.AST
    bound: dict[str, ast.expr]


@dataclass
class Draft:
    """A program under edit. Positions always mean the original text; splices are applied together by `result`."""

    source: str
    _splices: list[tuple[int, int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tree = _parse(self.source)
        self._line_starts = _line_starts(self.source)

    # -- finding ---------------------------------------------------------------------------------------------

    def definition(self, path: str) -> ast.FunctionDef | ast.ClassDef:
        """The function or class at `path`, such as "train" or "Block.forward"."""
        body: Sequence[ast.stmt] = self.tree.body
        found: ast.stmt | None = None
        for name in path.split("."):
            found = next((one for one in body if isinstance(one, _DEFINITIONS) and one.name == name), None)
            if not isinstance(found, _DEFINITIONS):
                raise NotApplicable(f"no {path}")
            body = found.body
        assert isinstance(found, _DEFINITIONS)
        return found

    def matches(self, where: str | None, pattern: str) -> list[Match]:
        """Every statement or expression below `where` that fits `pattern`, in the order of the text."""
        shape = _pattern(pattern)
        kind = ast.stmt if isinstance(shape, ast.stmt) else ast.expr
        found: list[Match] = []
        for node in ast.walk(self.definition(where) if where else self.tree):
            bound: dict[str, ast.expr] = {}
            if isinstance(node, kind) and _fits(shape, node, bound):
                found.append(Match(node, bound))
        return sorted(found, key=lambda match: self.span(match.node))

    def find(self, where: str | None, *patterns: str) -> Match:
        """The first place that fits one of the patterns, tried in turn; NotApplicable when there is none."""
        for pattern in patterns:
            if found := self.matches(where, pattern):
                return found[0]
        raise NotApplicable(f"nothing like `{patterns[0]}` in {where}")

    def has(self, where: str | None, pattern: str) -> bool:
        """Whether anything fits the pattern."""
        return bool(self.matches(where, pattern))

    def calls(self, callee: str, where: str | None = None) -> list[ast.Call]:
        """Every call of `callee` with any arguments; NotApplicable when there is none."""
        root = self.definition(where) if where else self.tree
        found = [one for one in ast.walk(root) if isinstance(one, ast.Call) and ast.unparse(one.func) == callee]
        if not found:
            raise NotApplicable(f"no call of {callee}")
        return sorted(found, key=self.span)

    def statement(self, node: ast.AST) -> ast.stmt:
        """The innermost statement that contains `node`; a statement contains itself."""
        if isinstance(node, ast.stmt):
            return node
        around = (one for one in ast.walk(self.tree) if isinstance(one, ast.stmt))
        holding = (one for one in around if any(inner is node for inner in ast.walk(one)))
        return min(holding, key=lambda one: len(self.text(one)))

    def require(self, fits: bool, why: str = "not for this program") -> None:
        """NotApplicable unless `fits`."""
        if not fits:
            raise NotApplicable(why)

    def constant(self, name: str) -> ast.Assign:
        """The module-level assignment of the constant `name`."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
                return node
        raise NotApplicable(f"no constant {name}")

    def constants(self) -> dict[str, Any]:
        """Every module-level UPPER_CASE constant with a literal value."""
        found: dict[str, Any] = {}
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
                try:
                    found[node.targets[0].id] = ast.literal_eval(node.value)
                except ValueError:
                    pass  # computed from other constants: not a dial
        return found

    def value(self, name: str) -> Any:
        """The literal value of a constant."""
        values = self.constants()
        self.require(name in values, f"no constant {name}")
        return values[name]

    # -- changing --------------------------------------------------------------------------------------------

    def text(self, node: ast.AST) -> str:
        """The source text of a node."""
        start, end = self.span(node)
        return self.source[start:end]

    def replace(self, node: ast.AST, text: str) -> None:
        """Put `text` in the place of a node."""
        self._splices.append((*self.span(node), text))

    def before(self, node: ast.AST, *lines: str) -> None:
        """Add lines above the statement of a node, indented like it (further indentation is kept)."""
        statement = self.statement(node)
        start = self._line_starts[_first_line(statement) - 1]
        self._splices.append((start, start, _indented(statement, lines)))

    def after(self, node: ast.AST, *lines: str) -> None:
        """Add lines below the statement of a node, indented like it."""
        statement = self.statement(node)
        end = self._line_starts[statement.end_lineno or statement.lineno]
        self._splices.append((end, end, _indented(statement, lines)))

    def delete(self, node: ast.AST) -> None:
        """Remove the whole lines of a node's statement, its comment included."""
        statement = self.statement(node)
        last = statement.end_lineno or statement.lineno
        self._splices.append((self._line_starts[_first_line(statement) - 1], self._line_starts[last], ""))

    def argument(self, call: ast.Call, text: str) -> None:
        """Append an argument to a call that has at least one."""
        end = max(self.span(one)[1] for one in [*call.args, *call.keywords])
        self._splices.append((end, end, f", {text}"))

    def parameter(self, path: str, name: str) -> None:
        """Append a positional parameter to the function at `path`."""
        function = self.definition(path)
        assert isinstance(function, ast.FunctionDef)
        self.require(bool(function.args.args) and not function.args.kwonlyargs)
        end = self.span(function.args.args[-1])[1]
        self._splices.append((end, end, f", {name}"))

    def set(self, name: str, value: Literal) -> None:
        """Change the value of a constant and keep its comment."""
        self.replace(self.constant(name).value, literal(value))

    def define(self, name: str, value: Literal, comment: str, after: str) -> None:
        """Add a constant below the constant `after`, or change it where it exists."""
        if name in self.constants():
            self.set(name, value)
        else:
            self.after(self.constant(after), f"{name} = {literal(value)}  # {comment}")

    def add_definition(self, code: str, before: str) -> None:
        """Add a function or class above the top-level definition `before`, unless its name exists."""
        name = ast.parse(code).body[0]
        assert isinstance(name, _DEFINITIONS)
        if not any(isinstance(one, _DEFINITIONS) and one.name == name.name for one in self.tree.body):
            self.before(self.definition(before), *code.strip().splitlines(), "", "")

    def add_import(self, module: str) -> None:
        """Import a module of the standard library unless the program does."""
        if not self.has(None, f"import {module}"):
            first = next((one for one in self.tree.body if isinstance(one, ast.Import)), None)
            if first is None:
                raise NotApplicable("no imports")
            lines = [f"import {module}", ""] if "torch" in self.text(first) else [f"import {module}"]
            self.before(first, *lines)

    def result(self) -> str:
        """The edited text, without what the edit left unused; NotApplicable when it does not compile."""
        text, ends = self.source, len(self.source)
        ordered = sorted((start, end, index, new) for index, (start, end, new) in enumerate(self._splices))
        for start, end, _, new in reversed(ordered):  # from the back, so that offsets stay true
            if end > ends:
                raise NotApplicable("two changes overlap")
            text, ends = text[:start] + new + text[end:], start
        try:
            text = _without_new_leftovers(self.source, text)
            compile(text, "train.py", "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            raise NotApplicable(f"the edited program does not compile: {error}") from error
        return text

    # -- positions -------------------------------------------------------------------------------------------

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Where a node begins and ends in the text, in characters."""
        assert isinstance(node, ast.stmt | ast.expr | ast.keyword | ast.arg)
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._offset(node.lineno, node.col_offset), self._offset(node.end_lineno, node.end_col_offset)

    def _offset(self, line: int, column: int) -> int:
        start = self._line_starts[line - 1]
        text = self.source[start : self._line_starts[line]]
        return start + (column if text.isascii() else len(text.encode()[:column].decode()))


_DEFINITIONS = (ast.FunctionDef, ast.ClassDef)


def literal(value: Literal) -> str:
    """A value as a person would write it: 4 significant digits, 3e-4 rather than 0.00030000000000000003."""
    if isinstance(value, tuple):
        return "(" + ", ".join(literal(one) for one in value) + ")"
    if not isinstance(value, float):
        return repr(value)
    if 0.01 <= abs(value) < 1e4 or value == 0:
        plain = f"{value:.4g}"
        return plain if "." in plain else f"{plain}.0"
    digits, power = f"{value:.3e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"


def _first_line(statement: ast.stmt) -> int:
    decorators = statement.decorator_list if isinstance(statement, _DEFINITIONS) else []
    return min([statement.lineno, *(one.lineno for one in decorators)])


def _indented(statement: ast.stmt, lines: Sequence[str]) -> str:
    return "".join(f"{' ' * statement.col_offset}{line}".rstrip() + "\n" for line in lines)


@functools.lru_cache(maxsize=8)
def _parse(source: str) -> ast.Module:
    return ast.parse(source)


@functools.lru_cache(maxsize=8)
def _line_starts(source: str) -> tuple[int, ...]:
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return (*starts, starts[-1])


@functools.lru_cache(maxsize=256)
def _pattern(pattern: str) -> ast.AST:
    statement = ast.parse(pattern).body[0]
    return statement.value if isinstance(statement, ast.Expr) else statement


def _fits(shape: Any, node: Any, bound: dict[str, ast.expr]) -> bool:
    """Whether `node` has the shape of a pattern; fills `bound` with what the wildcards stand for."""
    if isinstance(shape, ast.Name) and shape.id.startswith("_") and isinstance(node, ast.expr):
        known = bound.setdefault(shape.id, node)
        return ast.dump(known) == ast.dump(node)
    if isinstance(shape, list):
        return len(shape) == len(node) and all(_fits(one, other, bound) for one, other in zip(shape, node, strict=True))
    if not isinstance(shape, ast.AST):
        return shape == node
    if type(shape) is not type(node):
        return False
    names = (name for name in shape._fields if name not in ("ctx", "kind", "type_comment"))
    return all(_fits(getattr(shape, name, None), getattr(node, name, None), bound) for name in names)


def _without_new_leftovers(before: str, after: str) -> str:
    """`after` without constants, definitions, imports and attributes that `before` used and `after` does not."""
    used_before, _ = _names(_parse(before))
    while True:
        used, defined = _names(ast.parse(after))
        leftover = next((node for name, node in defined if name in used_before - used), None)
        if leftover is None:
            return after
        lines = after.splitlines(keepends=True)
        first, last = _first_line(leftover) - 1, leftover.end_lineno or leftover.lineno
        if isinstance(leftover, _DEFINITIONS):
            while last < len(lines) and not lines[last].strip():
                last += 1
        after = "".join(lines[:first] + lines[last:])


@functools.lru_cache(maxsize=8)
def _names(tree: ast.Module) -> tuple[set[str], list[tuple[str, ast.stmt]]]:
    """Names and attributes (as ".name") that a program reads, and what it defines, each with its statement.

    Defined are functions, classes, imports and constants of the top level, and attributes that a method sets on self.
    """
    used: set[str] = set()
    defined: list[tuple[str, ast.stmt]] = []
    for node in tree.body:
        if isinstance(node, _DEFINITIONS):
            defined.append((node.name, node))
        elif isinstance(node, ast.Import):
            defined.append(((node.names[0].asname or node.names[0].name).split(".")[0], node))
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            defined.append((node.targets[0].id, node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            used.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            used.add(f".{node.attr}")
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            target = node.targets[0]
            if isinstance(target.value, ast.Name) and target.value.id == "self":
                defined.append((f".{target.attr}", node))
    return used, defined
