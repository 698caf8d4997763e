"""Plays what README says of services of one's own: its lines as they stand, at their own ports, and its Python.

They have a network of their own, where no port is taken and Ollama's is a scripted model's.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.onrecord_cli.test_first_ten_minutes import programs, services
from tests.support.person import ROOT, WAIT_SECONDS, Home

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap gives the network of its own"),
]

WAIT = f"""
until_it_says() {{
  for _ in $(seq {WAIT_SECONDS * 10}); do grep -q "$2" "$1" && return; sleep 0.1; done
  echo "$1 says no $2:"; cat "$1"; exit 1
}}
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)


def played() -> Iterator[str]:
    """A script of the lines, which waits where README has one wait."""
    (lines,) = (block for block in blocks("sh") if "gateway-svc serve" in block)
    (client,) = blocks("python")
    yield "set -eu"
    yield WAIT
    yield f"python -m demo.model_server --script {ROOT}/tests/onrecord_cli/tides.toml --port 11434 >model.log &"
    yield "until_it_says model.log http"
    for line in lines.splitlines():
        if started := re.match(r"(\S+) serve &", line):
            yield f"{started[0].removesuffix('&')} >{started[1]}.log 2>&1 &"
            yield f"until_it_says {started[1]}.log service.listening"
        else:
            yield line
    yield f"echo; cat >client.py <<'END'\n{client}END"
    yield "python client.py"
    yield "audit-svc calls | head -n 1"
    yield "kill $(jobs -p); wait"


def test_services_run_as_readme_says(tmp_path):
    home = Home(tmp_path, "127.0.0.1:11434")
    bin_folder = programs(tmp_path)
    services(bin_folder)
    (tmp_path / "played").write_text("\n".join(played()), "utf-8")
    ended = subprocess.run(
        ["bwrap", "--dev-bind", "/", "/", "--unshare-net", "--die-with-parent", "bash", "played"],
        cwd=tmp_path,
        env=home.environ | {"PATH": f"{bin_folder}:{home.environ['PATH']}"},
        capture_output=True,
        encoding="utf-8",
        timeout=WAIT_SECONDS,
        check=False,
    )
    told = ended.stdout + ended.stderr
    assert ended.returncode == 0, told
    assert "3 model requests · 3 tool calls" in told
    assert told.count("The next high water is at 07:02 in Cuxhaven.") == 2, told
