"""A small file that is replaced as a whole."""

import subprocess
import sys
from pathlib import Path

_REPLACES = """
import resource, signal, sys
from pathlib import Path
from recording.replacing import replace_file

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3, 3))
try:
    replace_file(Path(sys.argv[1]), b"a new one")
except OSError as error:
    print(error)
"""


def test_one_that_cannot_be_written_is_named_and_is_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(b"old")
    root = Path(__file__).resolve().parents[2]
    said = subprocess.check_output([sys.executable, "-c", _REPLACES, str(path)], cwd=root, text=True)
    assert said == f"[Errno 27] File too large: '{path}'\n"
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("keys.json", b"old")]
