import ast
import importlib
import inspect
import re
import runpy
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest

import lifecycle

PACKAGE = Path(lifecycle.__file__).parent
ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
HEAVY = ["click", "graphviz", "lightning", "llmcompressor", "msgspec", "numpy", "torch", "transformers"]
ROOMS_ABOVE = ["cli", "demo", "diagram", "distributed", "integrations", "session", "testing", "trace"]

LOADED_BY = """
import sys
before = set(sys.modules)
import {}
print("\\n".join(sorted(set(sys.modules) - before)))
"""


def loaded_by(module):
    """The modules that a fresh process loads to import a module."""
    command = [sys.executable, "-W", "error", "-c", LOADED_BY.format(module)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # this interpreter
    assert result.stderr == ""
    return set(result.stdout.split())


@pytest.fixture(scope="module")
def loaded():
    return loaded_by("lifecycle")


def tops(modules):
    return {module.partition(".")[0] for module in modules}


def test_importing_the_package_loads_only_transitions_and_the_standard_library(loaded):
    beyond = loaded - loaded_by("transitions.extensions.nesting")
    assert tops(beyond) - sys.stdlib_module_names == {"lifecycle"}


@pytest.mark.parametrize("module", HEAVY)
def test_importing_the_package_does_not_load_what_only_some_need(loaded, module):
    assert module not in loaded


@pytest.mark.parametrize("room", ROOMS_ABOVE)
def test_importing_the_package_does_not_load_the_rooms_above_the_engine(loaded, room):
    assert f"lifecycle.{room}" not in loaded


# The house

MODULES = {
    ".".join(("lifecycle", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def layers():
    """The floors of the contract that import-linter checks, top first, each as a set of rooms."""
    contracts = msgspec.toml.decode((ROOT / "pyproject.toml").read_bytes())["tool"]["importlinter"]
    (found,) = (contract for contract in contracts["contracts"] if contract["type"] == "layers")
    return [set(floor.split(" | ")) for floor in found["layers"]]


def test_contributing_shows_the_floors_that_the_tool_checks():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| (`\S+`(?:, `\S+`)*) \|", text, re.MULTILINE)
    floors = [set(re.findall(r"`([\w.]+?)(?:\.py|/)?`", line)) for line in shown]
    assert floors == [floor - {"__main__"} for floor in reversed(layers()) if floor != {"__main__"}]


def test_the_picture_of_the_house_shows_who_imports_whom():
    assert runpy.run_path(str(DOCS / "house.py"))["to_dot"]() == DOCS.joinpath("house.dot").read_text(encoding="utf-8")
    drawn = DOCS.joinpath("house.svg").read_text(encoding="utf-8")
    assert set(re.findall(r"<title>(\w+)</title>", drawn)) - {"house"} == set().union(*layers()) - {"__main__"}


@pytest.mark.parametrize("name", [name for name in MODULES if name.count(".") == 1])
def test_every_room_is_on_one_floor(name):
    assert sum(name.removeprefix("lifecycle.") in floor for floor in layers()) == 1


# Names


def test_the_public_names_are_sorted():
    assert lifecycle.__all__ == sorted(set(lifecycle.__all__))


@pytest.mark.parametrize("name", lifecycle.__all__)
def test_a_public_name_can_be_imported(name):
    assert getattr(importlib.import_module("lifecycle"), name) is not None


def test_the_public_names_are_all_that_the_package_imports():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(imported) == lifecycle.__all__


@pytest.mark.parametrize("module", ["events", "errors", "protocol.rules", "protocol.transition", "engine"])
def test_what_a_module_of_the_ground_floor_makes_public_is_public_in_the_package(module):
    assert set(importlib.import_module(f"lifecycle.{module}").__all__) <= set(lifecycle.__all__)


def test_the_package_says_that_it_is_typed():
    assert files("lifecycle").joinpath("py.typed").is_file()


def test_the_version_is_a_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", lifecycle.__version__)


# Documentation


def documented():
    """Every class and function that the reference shows, by its full name."""
    shown = {"lifecycle"}
    for page in DOCS.rglob("*.md"):
        # Those of the integrations need the frameworks: their examples run where those are.
        if page.parent.name == "integrations":
            continue
        shown.update(re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.MULTILINE))
    found = []
    for name in sorted(shown):
        if name in MODULES:
            module = importlib.import_module(name)
            found += [getattr(module, each) for each in module.__all__]
        else:
            module, _, each = name.rpartition(".")
            found.append(getattr(importlib.import_module(module), each))
    return {
        f"{each.__module__}.{each.__name__}": each for each in found if inspect.isclass(each) or inspect.isroutine(each)
    }


DOCUMENTED = documented()


def members(documented):
    for name, each in documented.items():
        for member, value in vars(each).items() if inspect.isclass(each) else ():
            if not member.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)):
                yield f"{name}.{member}", value


MEMBERS = dict(members(DOCUMENTED))


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_documented_name_has_an_example_that_runs(name):
    doc = inspect.getdoc(DOCUMENTED[name]) or ""
    assert "\nExamples:\n    >>> " in doc


@pytest.mark.parametrize("name", MEMBERS)
def test_a_documented_member_says_what_it_is(name):
    doc = MEMBERS[name].__doc__ or ""
    assert re.match(r"\S.*[.?:]$", doc.partition("\n")[0])
