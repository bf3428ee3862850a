"""The rooms of the package: imports go one way, every room has a docstring, functions are short."""

import ast
import io
import tokenize
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ds2d2_yolo"
# Ground modules serve every room and import none.
GROUND = {"compatibility", "errors", "files", "options", "resources", "tables"}
# A room imports rooms below its own, not those beside it.
FLOORS = [
    {"method"},
    {"detectors"},
    {"data", "scenes"},
    {"loading"},
    {"evaluation"},
    {"training"},
    {"comparison", "explanation"},
    {"report"},
    {"pictures"},
    {"trainer"},
    {"commands"},
    {"cli"},
]
ALONE = {"method", "data", "scenes"}  # import no room at all
LINES, BRANCHES = 60, 15
BRANCH = (ast.If, ast.For, ast.While, ast.IfExp, ast.ExceptHandler, ast.comprehension, ast.BoolOp)


@cache
def modules():
    """The modules of the package by their names, as trees."""
    trees = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        trees[name] = ast.parse(path.read_text(encoding="utf-8"))
    return trees


def imported(tree):
    """The names that a module imports anywhere, within functions and for type checking too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in modules() else node.module


@cache
def imports():
    """The modules of the package that each one imports.

    The top module is left out: it imports its names on first use.
    """
    names = modules().keys() - {"ds2d2_yolo"}
    return {name: set(imported(modules()[name])) & names - {name} for name in names}


def room_of(module):
    return module.split(".")[1]


def floor_of(room):
    return next(floor for floor, rooms in enumerate(FLOORS) if room in rooms)


def test_every_module_is_in_a_room_or_on_the_ground():
    assert {room_of(name) for name in imports()} <= GROUND.union(*FLOORS)


def test_rooms_import_only_rooms_below():
    against = [
        f"{name} imports {target}"
        for name, targets in imports().items()
        for target in targets
        if room_of(target) not in GROUND | {room_of(name)}
        and (room_of(name) in GROUND | ALONE or floor_of(room_of(target)) >= floor_of(room_of(name)))
    ]
    assert against == []


def test_the_method_imports_no_ultralytics():
    method = [tree for name, tree in modules().items() if name.startswith("ds2d2_yolo.method")]
    assert "ultralytics" not in {target.split(".")[0] for tree in method for target in imported(tree)}


def test_modules_do_not_import_in_circles():
    try:
        TopologicalSorter(imports()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("room", sorted(set().union(*FLOORS) - {"cli", "pictures", "trainer"}))
def test_a_room_says_what_it_knows(room):
    text = ast.get_docstring(modules()[f"ds2d2_yolo.{room}"])
    assert text
    assert "know" in text.lower() or "independent of" in text.lower()


def lines_of_code(function, code_lines):
    """Lines of a function, without its docstring, comments and empty lines."""
    lines = {line for line in code_lines if function.lineno <= line <= function.end_lineno}
    if ast.get_docstring(function) is not None:
        lines -= set(range(function.body[0].lineno, function.body[0].end_lineno + 1))
    return len(lines)


def spanned(token):
    return range(token.start[0], token.end[0] + 1)


def test_functions_are_short():
    layout = {tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    long = []
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        code = {line for token in tokens if token.type not in layout for line in spanned(token)}
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = lines_of_code(node, code)
                branches = sum(isinstance(child, BRANCH) for child in ast.walk(node))
                if lines > LINES or branches > BRANCHES:
                    long.append(f"{path.relative_to(PACKAGE)} {node.name}: {lines} lines, {branches} branches")
    assert long == []


def test_names_of_tests_are_short():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in Path(__file__).parent.rglob("test_*.py")]
    names = [node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert [name for name in names if len(name) >= 60] == []
