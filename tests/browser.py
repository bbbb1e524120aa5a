"""Debian's Chromium without a window: what a page comes to, and what it looks like."""

import html
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

CHROMIUM = shutil.which("chromium") or "chromium"
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--allow-file-access-from-files", "--virtual-time-budget=60000",
]  # fmt: skip
SCHEMES = {"dark": 0, "light": 1}


def run(page, *options, scheme="light"):
    """What Chromium prints for a page: a path, or HTML."""
    with tempfile.TemporaryDirectory() as folder:
        if not isinstance(page, Path):
            path = Path(folder, "page.html")
            path.write_text(page, encoding="utf-8")
            page = path
        command = [
            CHROMIUM, *OPTIONS, f"--user-data-dir={folder}/profile",
            f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}", *options, page.resolve().as_uri(),
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, check=True, timeout=300).stdout.decode()


def evaluate(page, script, scheme="light"):
    """What an asynchronous function makes of a page that is given as HTML; what it returns must be fit for JSON."""
    ask = (
        f"<pre id=answer></pre><script>(async () => {{ {script} }})().then(value => ({{value}}), "
        "error => ({error: String(error)})).then(answer => "
        "{ document.getElementById('answer').textContent = JSON.stringify(answer) })</script>"
    )
    printed = run(page + ask, "--dump-dom", scheme=scheme)
    answer = json.loads(html.unescape(re.search(r'<pre id="answer">(.*?)</pre>', printed, re.DOTALL)[1]))
    assert "error" not in answer, answer["error"]
    return answer["value"]
