"""Turns the train.py of an autoresearch directory into one that keeps the harness's contract, as far as rules go.

Nothing of it is run. The text is parsed and edited in place, pass by pass, so that layout and comments stay. What a
rule cannot decide becomes a comment `# task new: ...` above its line. The rules are for what karpathy/autoresearch and
its CPU and MPS forks have in common: names from prepare.py, a loop that ends by the clock, CUDA.
"""

from __future__ import annotations

import ast
import builtins
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

MARK = "# task new: "
Value = int | float | str
Span = tuple[int, int, int, int]  # line and column of the start, and of the end
Edit = tuple[Span, str]

_ALLOWED = {*sys.stdlib_module_names, "torch", "numpy"}
_LOW = ("torch.bfloat16", "torch.float16", "torch.half")  # slow on most CPUs
_AUTOCAST = ("torch.amp.autocast", "torch.autocast", "torch.cuda.amp.autocast")
_USELESS = re.compile(  # calls that set up a GPU, seed what the harness seeds, or write files
    r"torch\.(cuda|mps)\.|(.*\.)?(manual_seed|seed|set_float32_matmul_precision|set_num_threads)$|torch\.save$"
)
_PURE = re.compile(
    r"(time\.\w+|int|float|max|min|round|sum|len|.*\.(item|detach|numel|estimate_flops|num_\w+|values|parameters))$"
)
_CPU = {"DEPTH": 2, "DEVICE_BATCH_SIZE": 4, "TOTAL_BATCH_SIZE": 1024, "MAX_SEQ_LEN": 256}  # what one core can do
_GPU = {"DEPTH": 6, "DEVICE_BATCH_SIZE": 64, "TOTAL_BATCH_SIZE": 2**13, "MAX_SEQ_LEN": 512}  # from here on it cannot
_SIMPLE = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.Delete, ast.Assert)
_FLASH = """

def flash_attn_func(q, k, v, causal=True, window_size=(-1, -1)):  # what the GPU's kernel does: [B, T, heads, channels]
    T, groups = q.shape[1], q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2)
    mask = torch.ones(T, T, dtype=torch.bool).tril()
    if 0 <= window_size[0] < T:
        mask = mask.triu(-window_size[0])
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)

"""


def convert(source: str, constants: Mapping[str, Value]) -> str:
    """The converted text; `constants`: what prepare.py defines. SyntaxError when it is not Python."""
    text = _flattened(source.replace("\r\n", "\n"))
    while (edited := _edited(text, list(_expressions(ast.parse(text))))) != text:
        text = edited
    text, found = _with_loop(text)
    text = _with_constants(_without_useless(text), constants)
    text = _edited(text, [*_sized(ast.parse(text)), *_doubts(ast.parse(text))])
    if found:
        return _split(text)
    return (
        f"{MARK}no training loop with a backward() was found; write def train(ctx) (its contract: program.md)\n{text}"
    )


def notes(text: str) -> list[tuple[int, str]]:
    """What is left to look at: line numbers and words."""
    return [
        (n, line.split(MARK, 1)[1]) for n, line in enumerate(text.splitlines(), 1) if line.lstrip().startswith(MARK)
    ]


def constants_of(prepare: str) -> dict[str, Value]:
    """Numbers, strings and paths that a prepare.py names at its top level."""
    found: dict[str, Value] = {}
    for node in ast.parse(prepare).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = _value(node.value, found)
            if value is not None:
                found[node.targets[0].id] = value
    return found


def _value(node: ast.expr, known: Mapping[str, Value]) -> Value | None:
    """What a plain expression is, without running anything."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str):
        return node.value
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, known), _value(node.right, known)
        if isinstance(left, int) and isinstance(right, int) and isinstance(node.op, ast.Mult | ast.Pow):
            return left * right if isinstance(node.op, ast.Mult) else left ** min(right, 64)
        if isinstance(node.op, ast.Div) and isinstance(left, str) and isinstance(right, str):
            return str(Path(left) / right)
    if isinstance(node, ast.Call):
        name, parts = _name(node.func), [_value(part, known) for part in node.args]
        words = [part for part in parts if isinstance(part, str)]
        if name == "Path.home":
            return str(Path.home())
        if words and len(words) == len(parts):
            if name == "os.path.expanduser":
                return str(Path(words[0]).expanduser())
            if name in ("os.path.join", "Path", "pathlib.Path"):
                return str(Path(*words))
    return None


# ---- looking and editing


def _edited(text: str, edits: Sequence[Edit]) -> str:
    """The text with spans replaced; of edits within each other, the outer one."""
    data = text.encode()
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    starts.append(starts[-1])  # a place after the last line
    spans = ((starts[line - 1] + column, starts[last - 1] + end, new) for (line, column, last, end), new in edits)
    at, out = 0, b""
    for start, end, new in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= at:
            out += data[at:start] + new.encode()
            at = end
    return (out + data[at:]).decode()


def _last(node: ast.stmt | ast.expr) -> int:
    return node.end_lineno or node.lineno


def _at(node: ast.stmt | ast.expr) -> Span:
    return node.lineno, node.col_offset, _last(node), node.end_col_offset or 0


def _whole(node: ast.stmt | ast.expr) -> Span:
    """Its lines."""
    return node.lineno, 0, _last(node) + 1, 0


def _lines(text: str, first: int, last: int) -> str:
    return "".join(text.splitlines(keepends=True)[first - 1 : last])


def _name(node: ast.AST) -> str:
    """`torch.cuda.synchronize` of such an expression; `?.item` where it begins with something else."""
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def _calls(node: ast.AST, method: str) -> list[ast.Attribute]:
    """The `x.method` of its calls, anywhere in it."""
    found = (part.func for part in ast.walk(node) if isinstance(part, ast.Call))
    return [called for called in found if isinstance(called, ast.Attribute) and called.attr == method]


def _reads(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)}


def _binds(node: ast.AST) -> set[str]:
    """Names that a statement gives a value to, in its own scope."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    own = {node.id} if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load) else set[str]()
    own |= {node.arg} if isinstance(node, ast.arg) else set()  # of a lambda
    own |= {node.name} if isinstance(node, ast.ExceptHandler) and node.name else set()
    return own.union(*map(_binds, ast.iter_child_nodes(node)))


def _locals(node: ast.FunctionDef) -> set[str]:
    arguments = {part.arg for part in ast.walk(node.args) if isinstance(part, ast.arg)}
    return arguments.union(*map(_binds, node.body))


def _needs(node: ast.AST) -> set[str]:
    """Names that a statement reads from around it; a function, when it is called."""
    if isinstance(node, ast.FunctionDef):
        return set[str]().union(*map(_needs, [*node.body, *node.decorator_list, node.args])) - _locals(node)
    if isinstance(node, ast.ClassDef):
        return set[str]().union(*map(_needs, [*node.body, *node.bases, *node.decorator_list]))
    return _reads(node)


Block = tuple[list[ast.stmt], set[str], bool]  # statements, names that are local there, whether in a def or class


def _blocks(body: list[ast.stmt], known: set[str], inner: bool = False) -> Iterator[Block]:
    yield body, known, inner
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield from _blocks(node.body, known | _locals(node), True)
            continue
        if isinstance(node, ast.ClassDef):
            yield from _blocks(node.body, known.union(*map(_binds, node.body)), True)
            continue
        for part in [node, *getattr(node, "handlers", [])]:
            for field in ("body", "orelse", "finalbody"):
                if block := getattr(part, field, []):
                    yield from _blocks(block, known, inner)


def _uses_gpu(node: ast.AST) -> bool:
    names = (_name(part) for part in ast.walk(node) if isinstance(part, ast.Attribute))
    return any(re.match(r"torch\.(cuda|mps)\.(?!is_available)", name) for name in names)


def _shifted(text: str, by: int) -> str:
    """Moved by so many columns, but for what is within a string of several lines. `text` begins without a margin."""
    within = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.JoinedStr | ast.Constant)
        for line in range(node.lineno + 1, _last(node) + 1)
    }
    lines = enumerate(text.splitlines(keepends=True), 1)
    return "".join(line if number in within or not line.strip() else " " * by + line for number, line in lines)


# ---- the passes


def _flattened(text: str) -> str:
    """What runs under `if __name__ == "__main__"`, or in a function without parameters that holds the loop, comes to
    the end of the top level."""
    run, gone = "", set[int]()
    for node in ast.parse(text).body:
        is_main = isinstance(node, ast.If) and "__name__" in _reads(node.test)
        is_run = isinstance(node, ast.FunctionDef) and not node.args.args and bool(_calls(node, "backward"))
        if isinstance(node, ast.If | ast.FunctionDef) and (is_main or is_run):
            if is_run or not run:  # else it only calls that function
                column = node.body[0].col_offset
                block = _lines(text, node.body[0].lineno, _last(node)).splitlines(keepends=True)
                run += "".join(line[column:] if not line[:column].strip() else line for line in block)
            gone.update(range(node.lineno, _last(node) + 1))
    kept = (line for number, line in enumerate(text.splitlines(keepends=True), 1) if number not in gone)
    return "".join(kept).rstrip() + "\n\n" * bool(run) + run.rstrip() + "\n"


def _expressions(tree: ast.Module) -> Iterator[Edit]:
    """What has a counterpart: compile, autocast, 16-bit floats, devices, flash attention, vocabulary and batches."""
    compared = {id(part) for node in ast.walk(tree) if isinstance(node, ast.Compare) for part in ast.walk(node)}
    loaders: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and "dataloader" in _name(node.value.func):
            words = {word.arg: word.value for word in node.value.keywords}
            shape = [*node.value.args[1:3], *(words[word] for word in ("B", "T") if word in words)]
            loaders[_name(node.targets[0])] = ", ".join(map(ast.unparse, shape[:2]))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for one in node.decorator_list:
                if _name(one.func if isinstance(one, ast.Call) else one) == "torch.compile":
                    yield _whole(one), ""
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _name(node.value.func) == "next":
            shape, targets = loaders.get(_name(node.value.args[0])), node.targets[0]
            if shape and isinstance(targets, ast.Tuple):
                yield _at(node), f"{', '.join(map(ast.unparse, targets.elts[:2]))} = ctx.batch({shape})"
        elif isinstance(node, ast.Call):
            name = _name(node.func)
            inner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
            if name == "torch.compile" and node.args:
                yield _at(node), ast.unparse(node.args[0])
            elif name in _AUTOCAST:
                yield _at(node), "nullcontext()"
            elif name.endswith(".flash_attn_func"):
                yield _at(node.func), "flash_attn_func"
            elif name.endswith(".get_vocab_size"):
                yield _at(node), "ctx.vocab_size"
            elif name.endswith((".bfloat16", ".half")) and not node.args:
                yield _at(node), f"{inner}.float()"
            elif name.endswith(".cuda") and not node.args:
                yield _at(node), inner
        elif isinstance(node, ast.Attribute) and _name(node) in _LOW:
            yield _at(node), "torch.float32"
        elif isinstance(node, ast.Constant) and node.value in ("cuda", "cuda:0", "mps") and id(node) not in compared:
            yield _at(node), '"cpu"'
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and _name(node.right) == "TIME_BUDGET":
            yield _at(node), "step / ctx.steps"


def _with_loop(text: str) -> tuple[str, bool]:
    """The loop takes ctx.steps steps and counts each, and the model is returned after it; whether there is a loop."""
    tree = ast.parse(text)
    loops = [node for node in tree.body if isinstance(node, ast.While | ast.For) and _calls(node, "backward")]
    if not loops:
        return text, False
    loop, body = loops[0], loops[0].body
    ones = [node for node in body if isinstance(node, ast.AugAssign) and ast.unparse(node.value) == "1"]
    counter = loop.target if isinstance(loop, ast.For) else ones[0].target if ones else None
    step = counter.id if isinstance(counter, ast.Name) else "step"
    # From the head up to the body; then whatever counts, and what ends the loop before its steps are taken.
    edits: list[Edit] = [((loop.lineno, 0, body[0].lineno, 0), f"for {step} in range(ctx.steps):\n")]
    edits += [(_whole(node), "") for node in ones[:1] if isinstance(loop, ast.While)]
    edits += [(_whole(node), "") for node in tree.body if ast.unparse(node) == f"{step} = 0"]
    edits += [(_whole(node), "") for node in body if isinstance(node, ast.If) and isinstance(node.body[-1], ast.Break)]
    loss = _name(_calls(loop, "backward")[-1].value)
    for called in _calls(loop, "detach"):  # as it was before it was divided among micro-steps
        loss = next(
            (_name(node.targets[0]) for node in ast.walk(loop) if isinstance(node, ast.Assign)
             and isinstance(node.value, ast.Call) and node.value.func is called and _name(called.value) == loss), loss,
        )  # fmt: skip
    inputs = {_name(node.targets[0].elts[0]) for node in ast.walk(loop) if isinstance(node, ast.Assign)
              and isinstance(node.targets[0], ast.Tuple) and "ctx.batch" in ast.unparse(node.value)}  # fmt: skip
    fed = [_name(node.func) for node in ast.walk(loop)
           if isinstance(node, ast.Call) and node.args and _name(node.args[0]) in inputs]  # fmt: skip
    model = next((name for name in fed if name.isidentifier()), "model")
    stepping = [index for index, node in enumerate(body) if _calls(node, "step")]
    after = stepping[-1] if stepping else len(body) - 1
    after += after + 1 < len(body) and bool(_calls(body[after + 1], "zero_grad"))
    margin = " " * body[0].col_offset
    doubt = "" if stepping else f"{margin}{MARK}no step() of an optimizer was found; ctx.step comes right after it\n"
    place = _last(body[after]) + 1, 0, _last(body[after]) + 1, 0
    edits.append((place, f"{doubt}{margin}ctx.step({model}, {loss if loss.isidentifier() else None})\n"))
    rest = _lines(text, _last(loop) + 1, len(text))
    doubt = f"{MARK}what followed the loop is left out; what changed the model there belongs here\n"
    tail = (doubt if re.search(r"load_state_dict|copy_\(|\bema|\bswa", rest, re.I) else "") + f"return {model}\n"
    text = _edited(_lines(text, 1, _last(loop)).rstrip() + "\n", edits)
    return f"{text.rstrip()}\n{tail}".replace("step / ctx.steps", f"{step} / ctx.steps"), True


def _without_useless(text: str) -> str:
    """What has no place in a sandboxed run on a CPU is out, with what was only there for it."""
    dropped = {  # of prepare.py, numbers and strings are copied later
        name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and node.module == "prepare"
        for name in _binds(node) if not name.isupper()
    }  # fmt: skip
    while True:
        tree, edits = ast.parse(text), list[Edit]()
        blocks = list(_blocks(tree.body, set()))
        everything = [(node, inner) for block, _, inner in blocks for node in block]
        checks = {
            node.name for node in tree.body if isinstance(node, ast.FunctionDef)
            and "platform" in ast.unparse(node) and any(isinstance(part, ast.Raise) for part in ast.walk(node))
        }  # fmt: skip
        read = set[str]().union(*(_own_reads(node) - _only_itself(node) for node, _ in everything))
        for block, known, inner in blocks:
            here, gone = dropped - known, list[ast.stmt]()
            for node in block:
                if _is_useless(node, here, inner, read, checks):
                    gone.append(node)
                    kept = [one for one, within in everything if not within and one not in gone and one is not node]
                    others = (_binds(one) for one in kept if not hasattr(one, "body"))
                    names = _binds(node) if inner else _binds(node).difference(*others)
                    here |= names
                    dropped |= set[str]() if inner else names
            for index, node in enumerate(gone):
                is_all = len(gone) == len(block) and index == 0 and block is not tree.body
                edits.append((_at(node), "pass") if is_all else (_whole(node), ""))
        edited = _edited(text, edits)
        if edited == text:
            return text
        text = edited


def _only_itself(node: ast.stmt) -> set[str]:
    """The name that a statement computes, where it computes one."""
    return _binds(node) if isinstance(node, ast.Assign | ast.AugAssign) and len(_binds(node)) == 1 else set()


def _own_reads(node: ast.stmt) -> set[str]:
    """Of a statement with a block: what its head reads."""
    heads = [getattr(node, field) for field in ("test", "iter") if hasattr(node, field)]
    heads += [item.context_expr for item in getattr(node, "items", [])]
    return set[str]().union(*map(_reads, heads)) if heads or hasattr(node, "body") else _reads(node)


def _is_useless(node: ast.stmt, dropped: set[str], inner: bool, read: set[str], checks: set[str]) -> bool:
    """Whether a statement goes. `inner`: in a function or class; `read`: names that anything else reads; `checks`:
    functions that refuse another platform."""
    if isinstance(node, ast.Import):
        return all(alias.name.split(".")[0] not in _ALLOWED for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return node.module != "prepare" and (node.module or "").split(".")[0] not in _ALLOWED
    if isinstance(node, ast.If | ast.For | ast.With):
        block = [*node.body, *getattr(node, "orelse", [])]
        return all(isinstance(part, ast.Pass) for part in block)
    if not isinstance(node, _SIMPLE):
        return False
    if _reads(node) & dropped or _uses_gpu(node):
        return True
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == ast.unparse(node.value):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        name = _name(node.value.func)
        return bool(_USELESS.match(name)) or (not inner and (name == "print" or name in checks))
    if inner or not isinstance(node, ast.Assign | ast.AugAssign):
        return False
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    calls = [_name(part.func) for part in ast.walk(node.value) if isinstance(part, ast.Call)]
    return all(isinstance(one, ast.Name) and one.id not in read for one in targets) and all(map(_PURE.match, calls))


def _with_constants(text: str, constants: Mapping[str, Value]) -> str:
    """In the place of the import from prepare.py: the constants that are read, and what stands in for a GPU's."""
    tree, edits, added = ast.parse(text), list[Edit](), ""
    read, bound = _reads(tree), set[str]().union(*map(_binds, tree.body))
    if "nullcontext" in read - bound:
        added += "from contextlib import nullcontext\n"
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "prepare"]
    for name in sorted(read & set[str]().union(*map(_binds, imports))):
        value = 256 if name == "VOCAB_SIZE" else constants.get(name)  # bytes
        if value is None:
            added += f"{MARK}{name} comes from prepare.py, which does not come along: write what it is\n"
        elif name == "TIME_BUDGET":
            added += f"{MARK}{name} is still read: go by step / ctx.steps instead\n"
        added += f"{name} = {value!r}\n"
    if "flash_attn_func" in read - bound:
        added += _FLASH
    for node in imports:
        edits.append((_whole(node), "" if node is not imports[0] else added))
    if not imports:
        last = max((_last(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)), default=0)
        edits.append(((last + 1, 0, last + 1, 0), added))
    return _edited(text, edits)


def _sized(tree: ast.Module) -> Iterator[Edit]:
    """Constants of a model and a batch that only a GPU trains are set to what one core of a CPU does."""
    found = {
        _name(node.targets[0]): (node, _value(node.value, {})) for node in tree.body if isinstance(node, ast.Assign)
    }
    values = {name: value for name, (_, value) in found.items() if name in _CPU and isinstance(value, int)}
    if any(value >= _GPU[name] for name, value in values.items()):
        for name, value in values.items():
            if value > _CPU[name]:
                node = found[name][0]
                yield _at(node), f"{MARK}was {value}, for a GPU\n{name} = {_CPU[name]}"


def _doubts(tree: ast.Module) -> Iterator[Edit]:
    """A comment above each line that still asks for what is not there."""
    there = {"ctx", "__file__", *dir(builtins)}.union(*map(_binds, tree.body))
    for block, known, _ in _blocks(tree.body, set()):
        for node in block:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                continue
            names = _own_reads(node)
            head = getattr(node, "test", None) or (node if not hasattr(node, "body") else None)
            words = sorted(names - there - known)
            words += ["torch.cuda"] if head is not None and _uses_gpu(head) else []
            words += ["open()"] if "open" in names else []
            if words:
                note = f"{' ' * node.col_offset}{MARK}{', '.join(words)} is not there in a sandboxed run on a CPU\n"
                yield (node.lineno, 0, node.lineno, 0), note


def _split(text: str) -> str:
    """What depends on ctx, and what that reaches, is the body of train(ctx); the rest stays in front of it."""
    body = ast.parse(text).body
    moved, names = set[int](), {"ctx"}
    while True:
        more = {
            index for index, node in enumerate(body)
            if isinstance(node, ast.Return) or (_needs(node) | _binds(node)) & names
        }  # fmt: skip
        if more == moved:
            break
        moved = more
        names = {"ctx"}.union(*(_binds(body[index]) for index in moved))
    parts, at = {True: "", False: ""}, 1
    for index, node in enumerate(body):
        parts[index in moved] += _lines(text, at, _last(node))
        at = _last(node) + 1
    front = re.sub(r"\n{4,}", "\n\n\n", parts[False]).strip("\n")
    inner = re.sub(r"\n{3,}", "\n\n", parts[True]).strip("\n")
    return f"{front}\n\n\ndef train(ctx):\n{_shifted(inner, 4)}\n"
