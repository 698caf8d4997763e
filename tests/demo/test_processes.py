"""Services as processes, and what tests and demos learn of them."""

import subprocess
import sys
import tempfile

from demo.processes import Service

LINES = 30_000


def test_a_log_that_is_read_while_it_is_written_loses_no_line():
    code = f"import os\nfor number in range({LINES}):\n    os.write(2, b'%05d\\n' % number)"
    stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the service
    with Service(subprocess.Popen([sys.executable, "-c", code], stderr=stderr), stderr) as service:
        while service.process.poll() is None:
            service.stderr_text()
        assert service.stderr_text().splitlines() == [f"{number:05}" for number in range(LINES)]
