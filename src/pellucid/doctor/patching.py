"""What to change in a program, as a unified diff of its text; nothing is ever written.

A change is found by parsing the program, so that only code of the expected form is touched: where a line says something
else than the diagnosis expects, there is no diff.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

SOFTMAXES = {"Softmax", "LogSoftmax", "softmax", "log_softmax"}
ACTIVATIONS = {"ReLU", "Sigmoid", "Tanh", "ReLU6", "LeakyReLU", "relu", "sigmoid", "tanh"}
LOADERS = {"DataLoader"}

Node = TypeVar("Node", bound=ast.stmt | ast.expr)


def patch(path: Path, name: str, line: int | None, *, rate: float | None = None) -> str | None:
    """The diff that treats a fault in a file; None where none is known.

    Args:
        path: The user's file.
        name: Of the fault.
        line: Where the fault was seen, counted from 1: of a softmax or an activation the line where it is made or
            called, of a rate where the optimizer is made, of gradients that were not zeroed the line of `backward()`,
            of modes the line of the loop or of the model's call, of data that was not shuffled where the loader is
            made. None finds the only place in the file, if there is only one.
        rate: The learning rate to use.
    """
    with path.open(encoding="utf-8", newline="") as file:  # its line ends stay as they are
        text = file.read()
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return None
    changed = _CHANGES[name](text, tree, line, rate) if name in _CHANGES else None
    if changed is None or changed == text or not _parses(changed):
        return None
    return "".join(
        difflib.unified_diff(
            text.splitlines(keepends=True), changed.splitlines(keepends=True), f"a/{path.name}", f"b/{path.name}"
        )
    )


Change = Callable[[str, ast.Module, int | None, float | None], str | None]


def _without_call(names: set[str]) -> Change:
    """Take out a layer of a `Sequential`, or leave of `softmax(x, …)` and `x.softmax(…)` the `x`."""

    def change(text: str, tree: ast.Module, line: int | None, rate: float | None) -> str | None:
        call = _only(_calls(tree, names), line)
        if call is None:
            return None
        if _called(call)[:1].isupper():
            return _without_layer(text, tree, call)
        functional = isinstance(call.func, ast.Name) or _source(text, call.func).split(".")[0] in ("torch", "F", "nn")
        kept = call.args[0] if functional and call.args else getattr(call.func, "value", None)
        return None if kept is None else _replaced(text, call, _source(text, kept))

    return change


def _without_layer(text: str, tree: ast.Module, layer: ast.Call) -> str | None:
    for node in ast.walk(tree):
        items = node.args if isinstance(node, ast.Call) else node.elts if isinstance(node, ast.List | ast.Tuple) else []
        at = next((i for i, each in enumerate(items) if each is layer), None)
        if at is None or (isinstance(node, ast.Call) and _called(node) != "Sequential"):
            continue
        if len(items) == 1:
            return None
        if at:  # with the comma before it
            begin, end = _end(text, items[at - 1]), _end(text, layer)
        else:
            begin, end = _begin(text, layer), _begin(text, items[1])
        return text[:begin] + text[end:]
    # An attribute (`self.out = nn.Softmax(1)`) is called by its name elsewhere: a layer that does nothing replaces it.
    prefix = _source(text, layer.func).rpartition(".")[0]
    return _replaced(text, layer, f"{prefix}.Identity()" if prefix else "nn.Identity()")


def _rate(text: str, tree: ast.Module, line: int | None, rate: float | None) -> str | None:
    """Another number for `lr`: where the optimizer is made, or where a variable or default of that name gets it."""
    if rate is None:
        return None
    optimizers = [call for call in ast.walk(tree) if isinstance(call, ast.Call) and _keyword(call, "lr") is not None]
    call = _only(optimizers, line)
    value = None if call is None else _keyword(call, "lr")
    if isinstance(value, ast.Name):
        value = _only(list(_assigned(tree, value.id)), None)
    if not isinstance(value, ast.Constant) or not isinstance(value.value, int | float):
        return None
    return _replaced(text, value, f"{rate:g}")


def _zeroing(text: str, tree: ast.Module, line: int | None, rate: float | None) -> str | None:
    """`optimizer.zero_grad()` before `backward()`, for the optimizer that is stepped."""
    backward = _only(_statements(tree, "backward"), line)
    steps = {name for name in map(_receiver, _statements(tree, "step")) if _is_optimizer(tree, name)}
    if backward is None or len(steps) != 1 or any(_calls(tree, {"zero_grad"})):
        return None
    return _before(text, backward, f"{steps.pop()}.zero_grad()")


def _training(text: str, tree: ast.Module, line: int | None, rate: float | None) -> str | None:
    """`model.train()` at the beginning of the loop over batches that calls `backward`."""
    backward = _only(_statements(tree, "backward"), None)
    model = _model(text, tree)
    if backward is None or model is None:
        return None
    loop = _innermost(tree, backward)
    return None if loop is None else _before(text, loop, f"{model}.train()")


def _evaluating(text: str, tree: ast.Module, line: int | None, rate: float | None) -> str | None:
    """`model.eval()` before the block without gradients, and `model.train()` before the loop that trains."""
    model = _model(text, tree)
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.With) and "no_grad" in ast.unparse(node)[:80]]
    block = _only(blocks, line) or _only(blocks, None)
    if model is None or block is None:
        return None
    changed = _before(text, block, f"{model}.eval()")
    return _training(changed, ast.parse(changed), None, None) or changed


def _shuffling(text: str, tree: ast.Module, line: int | None, rate: float | None) -> str | None:
    """`shuffle=True` for the loader."""
    call = _only(_calls(tree, LOADERS), line)
    if call is None or _keyword(call, "sampler") is not None or _keyword(call, "batch_sampler") is not None:
        return None
    given = _keyword(call, "shuffle")
    if given is not None:
        return _replaced(text, given, "True")
    last = max([*call.args, *(keyword.value for keyword in call.keywords)], key=lambda node: _end(text, node))
    at = _end(text, last)
    return f"{text[:at]}, shuffle=True{text[at:]}"


_CHANGES: dict[str, Change] = {
    "softmax-before-cross-entropy": _without_call(SOFTMAXES),
    "activation-on-output": _without_call(ACTIVATIONS),
    "learning-rate-too-high": _rate,
    "learning-rate-too-low": _rate,
    "gradients-not-zeroed": _zeroing,
    "model-left-in-eval-mode": _training,
    "validated-in-train-mode": _evaluating,
    "data-not-shuffled": _shuffling,
}


def _only(nodes: Iterable[Node], line: int | None) -> Node | None:
    """The node on a line; without a line the only one there is."""
    found = [node for node in nodes if line is None or node.lineno <= line <= (node.end_lineno or node.lineno)]
    if line is not None:
        found = [node for node in found if node.lineno == line] or found
    return found[0] if len(found) == 1 else None


def _calls(tree: ast.Module, names: set[str]) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call) and _called(node) in names)


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _statements(tree: ast.Module, method: str) -> list[ast.Expr]:
    """Statements that call a method of this name: `loss.backward()`."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and node.value.func.attr == method
    ]


def _receiver(statement: ast.Expr) -> str:
    """What the method of a statement is called on: `loss` of `loss.backward()`."""
    assert isinstance(statement.value, ast.Call) and isinstance(statement.value.func, ast.Attribute)
    return ast.unparse(statement.value.func.value)


def _is_optimizer(tree: ast.Module, name: str) -> bool:
    """Whether it is an optimizer, by its name or by what it was made with, and no schedule."""
    made = " ".join(
        ast.unparse(node.value.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and ast.unparse(node.targets[0]) == name
    )
    return "sched" not in name.lower() and "lr_scheduler" not in made and ("opt" in name.lower() or "optim" in made)


def _model(text: str, tree: ast.Module) -> str | None:
    """What the program calls its model: the receiver of `.parameters()` where an optimizer is made."""
    found = {
        _source(text, node.func.value)
        for node in _calls(tree, {"parameters"})
        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name | ast.Attribute)
    }
    return found.pop() if len(found) == 1 else None


def _innermost(tree: ast.Module, inside: ast.AST) -> ast.For | None:
    loops = [
        node for node in ast.walk(tree) if isinstance(node, ast.For) and any(each is inside for each in ast.walk(node))
    ]
    return max(loops, key=lambda node: node.lineno, default=None)


def _assigned(tree: ast.Module, name: str) -> Iterator[ast.expr]:
    """What `name = …` gives it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            yield node.value


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def _before(text: str, node: ast.stmt, line: str) -> str:
    """The text with a line before a statement, indented like it."""
    lines = text.splitlines(keepends=True)
    first = lines[node.lineno - 1]
    end = "\r\n" if first.endswith("\r\n") else "\n"
    lines.insert(node.lineno - 1, f"{first[: node.col_offset]}{line}{end}")
    return "".join(lines)


def _replaced(text: str, node: ast.expr, new: str) -> str:
    return text[: _begin(text, node)] + new + text[_end(text, node) :]


def _source(text: str, node: ast.AST) -> str:
    return ast.get_source_segment(text, node) or ast.unparse(node)


def _begin(text: str, node: ast.expr) -> int:
    return _offset(text, node.lineno, node.col_offset)


def _end(text: str, node: ast.expr) -> int:
    return _offset(text, node.end_lineno or node.lineno, node.end_col_offset or node.col_offset)


def _offset(text: str, line: int, column: int) -> int:
    """Where a line and a column, which the parser counts in bytes, are in the text."""
    lines = text.splitlines(keepends=True)
    return sum(map(len, lines[: line - 1])) + len(lines[line - 1].encode()[:column].decode())


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True
