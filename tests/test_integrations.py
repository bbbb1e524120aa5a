"""What the integrations import, and what they say when their framework is missing; on none of the frameworks."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import lifecycle
from lifecycle import integrations
from lifecycle.integrations import require

FRAMEWORKS = {
    "ignite": ("ignite", "pip install pytorch-ignite"),
    "lightning": ("lightning", "pip install lightning"),
    "llmcompressor": ("llmcompressor", "pip install llmcompressor"),
    "torch": ("torch", "pip install torch"),
    "transformers": ("transformers", "pip install transformers[torch]"),
}
THEIRS = {"accelerate", "ignite", "lightning", "llmcompressor", "torch", "transformers"}


class Missing:
    """Finds no module of some packages, whether they are installed or not."""

    def __init__(self, packages):
        self.packages = packages

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture
def without_frameworks(monkeypatch):
    for name in list(sys.modules):
        if name.partition(".")[0] in THEIRS or name.startswith("lifecycle.integrations."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing(THEIRS), *sys.meta_path])


def test_there_is_a_framework_for_each_integration():
    modules = {path.stem for path in Path(integrations.__path__[0]).glob("*.py")} - {"__init__"}
    assert modules == set(FRAMEWORKS)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_an_integration_without_its_framework_says_in_one_line_what_to_install(name, without_frameworks):
    package, install = FRAMEWORKS[name]
    with pytest.raises(ImportError) as caught:
        import_module(f"lifecycle.integrations.{name}")
    assert str(caught.value) == f"{package} is not installed: {install}"
    assert caught.value.name == package
    # Nothing of the failed search is shown.
    assert caught.value.__suppress_context__


LOADED = """
import sys
before = set(sys.modules)
import {module}
print("\\n".join(sorted(set(sys.modules) - before)))
"""


@pytest.mark.parametrize("module", ["lifecycle", "lifecycle.session", "lifecycle.integrations"])
def test_importing_it_loads_no_framework(module):
    command = [sys.executable, "-W", "error", "-c", LOADED.format(module=module)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in result.stdout.split()}
    assert "lifecycle" in loaded
    allowed = {"lifecycle", "transitions", "six", *sys.stdlib_module_names}
    assert loaded - allowed == set()


# require


def test_what_is_there_is_imported():
    assert require("lifecycle.errors", "pip install compression-lifecycle") is lifecycle.errors


@pytest.mark.parametrize(
    ("module", "missing"),
    [("no_such_framework", "no_such_framework"), ("no_such_framework.engine", "no_such_framework")],
)
def test_what_is_missing_is_an_import_error_of_one_line(module, missing):
    with pytest.raises(ImportError) as caught:
        require(module, "pip install no-such-framework")
    assert str(caught.value) == f"{missing} is not installed: pip install no-such-framework"
    assert (type(caught.value), caught.value.name) == (ImportError, missing)


@pytest.fixture
def framework(tmp_path, monkeypatch):
    """Makes a framework of one module, with a text."""

    def make(text):
        (tmp_path / "a_framework.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "a_framework", raising=False)

    return make


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("import a_dependency_of_it", ModuleNotFoundError, "No module named 'a_dependency_of_it'"),
        ("import a_framework_core", ModuleNotFoundError, "No module named 'a_framework_core'"),
        ("raise ModuleNotFoundError('half of it')", ModuleNotFoundError, "half of it"),
        ("raise ImportError('a library is too old')", ImportError, "a library is too old"),
    ],
)
def test_a_framework_that_is_there_but_fails_to_import_says_so_itself(framework, text, error, message):
    framework(text)
    with pytest.raises(error) as caught:
        require("a_framework", "pip install a-framework")
    assert str(caught.value) == message
