import pytest

from lifecycle import LifecycleError, ProtocolError, protocols
from lifecycle.lookup import find_protocol

OWN = """
from lifecycle import protocols
mine = protocols.TRAINING.extend("mine")
other = 3
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


def test_a_name_is_a_built_in_protocol():
    assert find_protocol("basic") is protocols.BASIC


def test_an_unknown_name_is_an_error():
    with pytest.raises(ProtocolError, match="'basics' is not a built-in protocol; did you mean 'basic'"):
        find_protocol("basics")


def test_a_file_and_a_name_is_the_protocol_that_the_file_defines(own):
    assert find_protocol("own.py:mine", own).name == "mine"


def test_a_file_is_looked_up_in_the_working_directory_by_default(own, monkeypatch):
    monkeypatch.chdir(own)
    assert find_protocol("own.py:mine").name == "mine"


def test_a_path_with_a_colon_is_no_hindrance(own):
    (own / "a:b.py").write_text(OWN)
    assert find_protocol("a:b.py:mine", own).name == "mine"


@pytest.mark.parametrize("name", ["min", "other"])
def test_what_is_not_a_protocol_is_an_error_that_names_the_nearest(own, name):
    with pytest.raises(LifecycleError, match=f"'{name}' is not a protocol in own.py; "):
        find_protocol(f"own.py:{name}", own)


def test_a_file_without_a_name_is_an_error_that_says_how_to_write_it():
    with pytest.raises(LifecycleError, match=r"^'own\.py' lacks the name of a protocol in that file: own\.py:NAME$"):
        find_protocol("own.py")


def test_a_file_without_protocols_says_so(tmp_path):
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(LifecycleError, match=r"'x' is not a protocol in empty\.py; it has none"):
        find_protocol("empty.py:x", tmp_path)


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError: "),
        ("raise SystemExit(2)", "SystemExit: 2"),
        ("import no_such_module", "ModuleNotFoundError: "),
        ("open('/no/such/file')", "FileNotFoundError: "),
    ],
)
def test_a_file_that_fails_is_an_error_of_the_library(tmp_path, code, problem):
    (tmp_path / "bad.py").write_text(code)
    with pytest.raises(LifecycleError, match=f"bad.py cannot be run: {problem}"):
        find_protocol("bad.py:x", tmp_path)


def test_a_file_that_is_not_there_is_an_operating_system_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        find_protocol("none.py:x", tmp_path)
