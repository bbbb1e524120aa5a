import io

import pytest

from lifecycle import Lifecycle, protocols, trace

SHOWN = {
    "protocol": protocols.TRAINING,
    "lifecycle": Lifecycle("training"),
    "report": trace.check(io.BytesIO(b'{"event": "INITIALIZE"}'), "training"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_value_shows_itself_in_a_notebook_without_a_program_too(name, monkeypatch):
    monkeypatch.setenv("PATH", "")
    bundle = SHOWN[name]._repr_mimebundle_()
    assert {"text/plain", "text/vnd.mermaid"} <= set(bundle)
    assert bundle["text/vnd.mermaid"].startswith("stateDiagram-v2\n")


@pytest.mark.parametrize("name", ["protocol", "lifecycle"])
def test_a_value_is_formatted_as_mermaid(name):
    assert format(SHOWN[name], "mermaid").startswith("stateDiagram-v2\n")
    assert f"{SHOWN[name]}" == repr(SHOWN[name])


@pytest.mark.parametrize("name", ["protocol", "lifecycle"])
def test_a_format_that_is_not_known_is_refused(name):
    with pytest.raises(ValueError, match="mermaid, dot, table"):
        format(SHOWN[name], "jpeg")
