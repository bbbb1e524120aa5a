import doctest
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

BASH = shutil.which("bash")
ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
# The others need the frameworks that they are about: tests/integration/test_pages.py runs them.
EXECUTED = [page for page in PAGES if page.parent.name != "integrations"]
LANGUAGES = {"bash", "console", "json", "python", "yaml", "mermaid", "lifecycle-diagram", "lifecycle-table", "text"}
SETUP = ["pip install -e . && lifecycle demo", 'pip install -e ".[test]" && pytest']
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "120"}


def run_console(example):
    """Run the commands of a console block in the root of the repository, and compare what they print."""
    directory = example.namespace["directory"]
    for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n?)*)", example.parsed + "\n", re.MULTILINE):
        done = subprocess.run(
            [BASH, "-c", command], cwd=directory, env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        found = done.stdout + done.stderr
        same = doctest.OutputChecker().check_output(
            expected.strip() + "\n", found.strip() + "\n", doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        )
        if not same:
            return f"$ {command}\nexpected:\n{expected}\nfound:\n{found}"
    return None


SYBIL = Sybil(
    parsers=[
        PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE),
        CodeBlockParser("console", run_console),
    ]
)


@pytest.mark.parametrize("page", EXECUTED, ids=lambda page: page.name)
def test_every_example_does_what_the_page_says(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    document = SYBIL.parse(page)
    document.namespace["directory"] = ROOT
    for example in document.examples():
        example.evaluate()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_code_block_has_a_language_that_is_executed_or_is_no_code(page):
    fences = re.findall(r"^ *(`{3,}) *([\w-]*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert {language for _, language in fences[::2]} <= LANGUAGES
    assert not any(language for _, language in fences[1::2])


def test_the_readme_has_the_two_commands_that_ci_runs():
    blocks = re.findall(r"```bash\n(.*?)\n```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks == SETUP
    assert all(shlex.split(block) for block in blocks)


def test_shell_blocks_that_are_not_executed_here_are_the_setup_commands_or_tasks_of_nox():
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)\n```", page.read_text(encoding="utf-8"), re.DOTALL):
            assert block in SETUP or all(re.match(r"nox( -s [\w-]+)?( |$)", line) for line in block.splitlines())
