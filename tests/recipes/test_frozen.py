"""Notebooks, and environments that are frozen between two calls."""

import json
import signal
import subprocess
import time

import pytest

from tests.recipes.applications import Recorded, blocks

pytestmark = pytest.mark.recipes

INVOKE = """
import json, sys
import handler

for line in sys.stdin:
    print(json.dumps(handler.handler(json.loads(line), None)), flush=True)
"""


def test_a_notebook_records_from_its_cells(make_application):
    application = make_application("Jupyter")
    cells = [
        {
            "cell_type": "code",
            "id": f"cell-{number}",
            "metadata": {},
            "source": application.placed(code),
            "outputs": [],
            "execution_count": None,
        }
        for number, code in enumerate(blocks("Jupyter", "python"))
    ]
    notebook = application.folder / "notebook.ipynb"
    notebook.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    application.run("jupyter-execute --kernel_name=python3 --inplace notebook.ipynb")
    outputs = [list(cell["outputs"]) for cell in json.loads(notebook.read_text())["cells"]]
    assert [len(output) for output in outputs] == [0, 1, 1], "nothing but what the cells say"
    call, flushed = ("".join(output[0]["data"]["text/plain"]) for output in outputs[1:])
    assert flushed == "True"
    recorded = Recorded()
    recorded.add(call.strip("'"), 1)
    application.settled(recorded)


@pytest.mark.parametrize("seconds", [2, pytest.param(65, marks=pytest.mark.long)])
def test_an_environment_that_is_frozen_after_each_answer_loses_no_call(make_application, seconds):
    """As AWS Lambda does: the whole of it stops, the program that sends too."""
    application = make_application("AWS Lambda")
    (application.folder / "invoke.py").write_text(INVOKE)
    recorded = Recorded()
    with application.running("python invoke.py", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for number in range(3):
            process.stdin.write(json.dumps({"city": "Kiel"}) + "\n")
            process.stdin.flush()
            told = json.loads(process.stdout.readline())
            assert told["recorded"], application.stderr()
            recorded.add(told["call"], process.pid)
            assert set(application.rows()) == set(recorded.ids), "before it is frozen"
            if number < 2:
                assert len(application.processes()) == 2
                application.signal_all(signal.SIGSTOP)
                time.sleep(seconds)
                application.signal_all(signal.SIGCONT)
        process.stdin.close()
        assert process.wait(60) == 0, application.stderr()
    application.settled(recorded)
