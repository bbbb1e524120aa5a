import re
from importlib import metadata

import pytest
from drawing import FLAT, GRAPHVIZ, PDF, PNG, program

from lifecycle import LifecycleError
from lifecycle.diagram import RenderError, draw, find_program, picture, to_dot, to_mermaid, to_svg


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No program is found, wherever it is looked for."""
    monkeypatch.delenv("LIFECYCLE_DOT", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(metadata, "files", lambda name: None)


@pytest.fixture
def drawing_with(monkeypatch, tmp_path):
    """Draw with a program that does what some Python says."""

    def use(code):
        path = program(tmp_path, code)
        monkeypatch.setenv("LIFECYCLE_DOT", str(path))
        return path

    return use


def writing(content):
    return f"sys.stdout.buffer.write({content!r})"


def test_the_variable_names_the_program(drawing_with):
    path = drawing_with("")
    assert find_program() == str(path)


def test_the_variable_may_name_a_program_on_the_path(monkeypatch, tmp_path):
    path = program(tmp_path, "", name="mydot")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LIFECYCLE_DOT", "mydot")
    assert find_program() == str(path)


def test_a_variable_that_names_no_program_is_an_error_and_nothing_else_is_tried(monkeypatch):
    monkeypatch.setenv("LIFECYCLE_DOT", "/no/such/dot")
    with pytest.raises(RenderError, match="LIFECYCLE_DOT is '/no/such/dot', which is not a program; name the `dot`"):
        find_program()


def test_without_the_variable_it_is_the_dot_on_the_path(nowhere, monkeypatch, tmp_path):
    path = program(tmp_path, "", name="dot")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program() == str(path)


def test_without_dot_it_is_the_program_of_the_package(nowhere, monkeypatch, tmp_path):
    path = program(tmp_path, "", name="graphviz-pure")

    class Installed(metadata.PackagePath):
        def locate(self):
            return path.parent / self.name

    files = [Installed("graphviz_pure/graphviz-pure.md"), Installed("../bin/graphviz-pure")]
    monkeypatch.setattr(metadata, "files", lambda name: files if name == "graphviz-pure" else None)
    assert find_program() == str(path.resolve())


def test_with_none_of_them_the_error_names_the_command_that_installs_one(nowhere):
    with pytest.raises(RenderError, match=re.escape('install it with: pip install "compression-lifecycle[render]"')):
        find_program()


def test_a_package_that_is_not_installed_is_no_error_of_its_own(nowhere, monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    with pytest.raises(RenderError, match="drawing needs Graphviz"):
        find_program()


def test_a_render_error_is_an_error_of_the_library():
    assert issubclass(RenderError, LifecycleError)


def test_text_needs_no_program(nowhere):
    drawn = picture(FLAT)
    assert draw(drawn, "dot") == to_dot(drawn).encode()
    assert draw(drawn, "mermaid") == to_mermaid(drawn).encode()


def test_text_follows_theme_and_direction(nowhere):
    drawn = picture(FLAT)
    assert draw(drawn, "dot", theme="dark", direction="LR") == to_dot(drawn, theme="dark", direction="LR").encode()
    assert draw(drawn, "mermaid", direction="LR") == to_mermaid(drawn, direction="LR").encode()


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_pictures_need_a_program(nowhere, kind):
    with pytest.raises(RenderError, match="drawing needs Graphviz"):
        draw(picture(FLAT), kind)


def test_an_unknown_format_is_refused(nowhere):
    with pytest.raises(ValueError, match="the format must be one of svg, png, pdf, dot, mermaid, got 'gif'"):
        draw(picture(FLAT), "gif")


def test_the_program_gets_the_dot_and_the_format(drawing_with, tmp_path):
    drawing_with(f"open({str(tmp_path / 'got')!r}, 'wb').write(source + repr(sys.argv[1:]).encode())\n{writing(PDF)}")
    assert draw(picture(FLAT), "pdf") == PDF
    assert (tmp_path / "got").read_bytes() == to_dot(picture(FLAT)).encode() + b"['-Tpdf']"


def test_a_png_has_twice_the_resolution_of_a_plain_screen(drawing_with):
    drawing_with(f"assert sys.argv[1:] == ['-Tpng', '-Gdpi=144']\n{writing(PNG)}")
    assert draw(picture(FLAT), "png") == PNG


def test_an_svg_is_finished(drawing_with):
    drawing_with(writing(GRAPHVIZ))
    assert draw(picture(FLAT), "svg").decode() == to_svg(picture(FLAT))
    assert 'class="lifecycle-diagram auto"' in to_svg(picture(FLAT))


@pytest.mark.parametrize("content", [b"", b"PNG", PDF, PNG[:-1]])
def test_what_is_not_a_png_is_refused(drawing_with, content):
    drawing_with(writing(content))
    with pytest.raises(RenderError, match="did not write a PNG"):
        draw(picture(FLAT), "png")


@pytest.mark.parametrize("content", [b"", PNG, PDF[:-3]])
def test_what_is_not_a_pdf_is_refused(drawing_with, content):
    drawing_with(writing(content))
    with pytest.raises(RenderError, match="did not write a PDF"):
        draw(picture(FLAT), "pdf")


def test_what_is_not_an_svg_is_refused(drawing_with):
    drawing_with(writing(PNG))
    with pytest.raises(RenderError, match="did not write an SVG"):
        draw(picture(FLAT), "svg")


def test_a_program_that_fails_is_quoted(drawing_with):
    drawing_with("sys.exit('syntax error in line 1\\nmore')")
    with pytest.raises(RenderError, match=r"could not draw png: syntax error in line 1$"):
        draw(picture(FLAT), "png")


def test_a_program_that_fails_silently_is_reported_with_its_status(drawing_with):
    drawing_with("sys.exit(3)")
    with pytest.raises(RenderError, match=r"could not draw svg: exit status 3$"):
        draw(picture(FLAT), "svg")


def test_where_pdf_fails_the_message_says_who_can(drawing_with):
    drawing_with("sys.exit('no pdf')")
    with pytest.raises(RenderError, match=r"could not draw pdf: no pdf; only Graphviz itself draws PDF$"):
        draw(picture(FLAT), "pdf")


def test_a_program_that_cannot_be_run_is_an_error_of_the_library(drawing_with):
    path = drawing_with("")
    path.write_text("#!/no/such/interpreter\n")
    with pytest.raises(RenderError, match="could not draw: "):
        draw(picture(FLAT), "svg")


def test_a_program_that_hangs_is_given_up(drawing_with, monkeypatch):
    monkeypatch.setattr("lifecycle.diagram.renderers.graphviz.TIME_LIMIT", 0.2)
    drawing_with("import time\ntime.sleep(60)")
    with pytest.raises(RenderError, match=r"could not draw: .* timed out"):
        draw(picture(FLAT), "svg")
