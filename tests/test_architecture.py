"""The repository layout, over the syntax trees: who may import whom, how large a file may grow, which names exist."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

import monai_segloss
from monai_segloss.core.names import camel

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted([*(ROOT / "monai_segloss").rglob("*.py"), *(ROOT / "nnunet_trainers").rglob("*.py")])

OURS = ("monai_segloss", "nnunet_trainers")
ORDER = [
    ("monai_segloss.core", "monai_segloss.files"),
    ("monai_segloss.kernels", "monai_segloss.maps"),
    ("monai_segloss.schedules", "monai_segloss.prior"),
    ("monai_segloss.losses",),
    ("monai_segloss.config", "monai_segloss.recipes"),
    ("monai_segloss._public", "monai_segloss.differences"),
    ("monai_segloss",),
    ("monai_segloss.testing",),
    ("monai_segloss.datalist", "monai_segloss.engine", "monai_segloss.transforms", "monai_segloss.bundle",
     "monai_segloss.checking", "nnunet_trainers"),
    ("monai_segloss.demo", "monai_segloss.experiment"),
    ("monai_segloss.cli",),
]  # fmt: skip
"""Packages from the ground up; a file imports from its own package and from those above it in this list."""

MAY_IMPORT = {
    "monai": (
        "monai_segloss.bundle",
        "monai_segloss.engine",
        "monai_segloss.transforms",
        "monai_segloss.demo",
        "monai_segloss.experiment",
    ),
    "nnunetv2": ("nnunet_trainers", "monai_segloss.demo", "monai_segloss.experiment", "monai_segloss.cli"),
}
"""Heavy packages and who may import them."""


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Modules that a file imports, TYPE_CHECKING blocks aside."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if top_level_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def level(module: str) -> int:
    """Position of a module in ORDER: that of the longest name it lies in."""
    best, position = -1, -1
    for i, packages in enumerate(ORDER):
        for package in packages:
            if (module == package or module.startswith(package + ".")) and len(package) > best:
                best, position = len(package), i
    return position


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_one_way(path: Path) -> None:
    here = level(module_name(path))
    assert here >= 0, f"{module_name(path)} is in no package of the layout"
    if module_name(path) == "monai_segloss":
        return
    for name in imports(path):
        if name.split(".")[0] in OURS:
            place = ROOT / Path(*name.split("."))
            module = name if place.is_dir() or place.with_suffix(".py").exists() else name.rpartition(".")[0]
            assert level(module or name) <= here, f"{module_name(path)} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_heavy_packages_stay_where_they_belong(path: Path) -> None:
    for name in imports(path):
        package = name.split(".")[0]
        allowed = MAY_IMPORT.get(package)
        assert allowed is None or module_name(path).startswith(allowed), f"{module_name(path)} imports {name}"


@pytest.mark.parametrize("path", [f for f in FILES if "losses" in f.parts], ids=module_name)
def test_no_loss_imports_the_class_of_another(path: Path) -> None:
    if path.name == "__init__.py":
        return
    for name in imports(path):
        if name.startswith("monai_segloss.losses."):
            assert not name.endswith("Loss"), f"{module_name(path)} imports {name}: share its function instead"


@pytest.mark.parametrize("path", [f for f in FILES if "losses" in f.parts], ids=module_name)
def test_losses_hold_formulas_and_no_kernels(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("Function", "custom_op"), (
                f"line {node.lineno}: it belongs into monai_segloss.kernels"
            )


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_files_stay_readable(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


TRACED = [f for f in FILES if module_name(f).split(".")[1:2] in (["core"], ["kernels"], ["losses"], ["maps"])]
"""Files that torch.compile reads."""


@pytest.mark.parametrize("path", TRACED, ids=module_name)
def test_types_to_look_for_are_tuples(path: Path) -> None:
    """``isinstance(x, A | B)`` ends the graph in torch 2.6."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            assert not isinstance(node.args[1], ast.BinOp), f"line {node.lineno}: write a tuple of types"


CARDS = {info.key: Path(inspect.getsourcefile(info.cls) or "") for info in monai_segloss.list_losses()}


def test_cards_are_short() -> None:
    """70 for formulas of sums and voxels; those with networks of their own are longer."""
    lines = {key: len(path.read_text(encoding="utf-8").splitlines()) for key, path in CARDS.items()}
    assert median(n for key, n in lines.items() if monai_segloss.find(key).family != "learned") <= 72
    assert median(lines.values()) <= 80


@pytest.mark.parametrize("key", CARDS)
def test_the_formula_stands_in_the_first_screen(key: str) -> None:
    screen = CARDS[key].read_text(encoding="utf-8").splitlines()[:40]
    first = [line.partition("Formula:")[2].strip() for line in screen if line.startswith("    Formula:")]
    assert first
    assert first[0]
    assert monai_segloss.find(key).formula.startswith(first[0])


def test_a_loss_lies_where_its_key_and_family_say() -> None:
    for info in monai_segloss.list_losses():
        card = ROOT / "monai_segloss" / "losses" / info.family / f"{info.key}.py"
        found = Path(inspect.getsourcefile(info.cls) or "")  # where the package is installed
        assert found.parts[-4:] == card.parts[-4:]
        assert card.is_file()
        assert f"class {info.cls.__name__}(" in inspect.getsource(info.cls)
        assert info.cls.__name__ == f"{camel(info.key)}Loss"
        assert getattr(monai_segloss, info.cls.__name__) is info.cls
        assert not any(re.search(r"\d$", name) for name in info.parameters), (
            "trainer names end an argument with a digit"
        )


@pytest.fixture(scope="module")
def imported_with_the_losses() -> set[str]:
    """Modules in a process that has made a loss."""
    code = "import sys, monai_segloss; monai_segloss.create('dice_ce'); print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("absent", ["monai", "nnunetv2", "itk"])
def test_importing_the_losses_imports_no_heavy_package(absent: str, imported_with_the_losses: set[str]) -> None:
    assert "monai_segloss.losses" in imported_with_the_losses
    assert absent not in imported_with_the_losses


def test_the_start_up_package_needs_only_the_standard_library() -> None:
    heavy = {"torch", "numpy", "nnunetv2", "monai_segloss"}
    code = f"import sys, nnunet_trainers; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
