"""The everyday tasks: ``nox -l`` lists them, ``nox -s NAME`` runs one."""

from __future__ import annotations

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint", "types", "tests", "docs", "diagrams"]

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
TOOLS = nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "tools")
DOCS = nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "docs")
MERMAID = "mermaid@11"
TORCH = "torch==2.13.0"
FRAMEWORKS = ["llmcompressor", "lightning", "pytorch-ignite"]  # LLM Compressor brings transformers.
INTEGRATIONS = "lifecycle/integrations/[a-z]*"


def tool(name: str) -> str:
    """The requirement of one of the tools."""
    return next(requirement for requirement in TOOLS if requirement.startswith(name))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests on every Python that is found."""
    session.install("-e", ".[test,render]")
    session.run("pytest", *session.posargs)


@nox.session(python="3.11")
def coverage(session: nox.Session) -> None:
    """Run the tests and fail below 100 % branch coverage."""
    session.install("-e", ".[test,render]")
    session.run("pytest", "--cov", "--cov-report=", *session.posargs)
    session.run("coverage", "report", f"--omit={INTEGRATIONS}", "--fail-under=100")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, and who imports whom."""
    session.install("-e", ".", tool("ruff"), tool("import-linter"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-logo")


@nox.session
def types(session: nox.Session) -> None:
    """Run both type checkers."""
    session.install("-e", ".[test]", tool("mypy"), tool("pyright"))
    session.run("mypy")
    session.run("pyright")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, where every warning is an error."""
    session.install("-e", ".[render]", *DOCS)
    session.run("mkdocs", "build", "--strict", *session.posargs)


@nox.session
def diagrams(session: nox.Session) -> None:
    """Check that the pictures in `diagrams/` are what the code draws."""
    session.install("-e", ".[render]")
    session.run("lifecycle", "draw", "--all", "--check")


def install_frameworks(session: nox.Session) -> None:
    """Install the package with every framework that it is put under."""
    constraints = f"{session.create_tmp()}/constraints.txt"
    with open(constraints, "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(f"{TORCH}\n")
    # First and alone, so that no other package chooses a build of torch.
    session.install(TORCH)
    session.install("-c", constraints, *FRAMEWORKS, "-e", ".[test]")


@nox.session
def integration(session: nox.Session) -> None:
    """Test against the real frameworks, and fail below 100 % branch coverage of what is made for them."""
    install_frameworks(session)
    session.run(
        "pytest",
        "--cov",
        "--cov-report=",
        "--ignore-glob=*/test_diagram_*.py",
        "tests/integration",
        "lifecycle/integrations",
        *session.posargs,
        env={"HF_HUB_OFFLINE": "1"},
    )
    session.run("coverage", "report", f"--include={INTEGRATIONS}", "--fail-under=100")


@nox.session
def pictures(session: nox.Session) -> None:
    """Draw with the real programs, in a real notebook and in Chromium; npm brings Mermaid."""
    session.install("-e", ".[test,render]", "nbclient", "nbformat", "ipykernel", *DOCS)
    where = session.create_tmp()
    session.run("npm", "install", "--no-save", "--no-audit", "--no-fund", "--prefix", where, MERMAID, external=True)
    pages = ("browser", "mermaid", "notebook", "programs")
    session.run(
        "pytest",
        *(f"tests/integration/test_diagram_{page}.py" for page in pages),
        *session.posargs,
        env={"MERMAID_JS": f"{where}/node_modules/mermaid/dist/mermaid.min.js"},
    )


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Measure, as ratios in one run."""
    install_frameworks(session)
    session.install("-e", ".[render]")
    session.run("python", "tests/benchmarks", *session.posargs)
    quick = [argument for argument in session.posargs if argument == "--quick"]
    for part in "trace", "diagram", "guard":
        session.run("python", f"tests/benchmarks/bench_{part}.py", *quick)


@nox.session
def mutation(session: nox.Session) -> None:
    """Change the code in small ways, and see whether a test notices."""
    session.install("-e", ".[test]", tool("mutmut"))
    session.run("mutmut", "run", *session.posargs)
    session.run("mutmut", "results")
