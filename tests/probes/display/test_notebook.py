"""In a notebook, executed: a line below the cell that is written anew, and what it says in the end."""

import pytest

nbclient = pytest.importorskip("nbclient", reason="notebooks are executed with nbclient: install .[docs]")
pytest.importorskip("ipykernel", reason="notebooks are executed in ipykernel: install .[docs]")
nbformat = pytest.importorskip("nbformat")

SLOW = """
import time
import torch
from landscape import MatrixOperator
from landscape.spectra import eigsh
from probes import progress
from probes.display import faces

faces.Notebook.every = 0.05

class Slow(MatrixOperator):
    def _matmat(self, V):
        time.sleep(0.03)
        return super()._matmat(V)

A = Slow(torch.diag(torch.linspace(-1.0, 3.0, 200)))
"""
SEARCH = "pairs = eigsh(A, 1, tol=0.02, confirm=False, callback=progress('largest'))"
BLOCK = """
with progress('trace') as callback:
    time.sleep(0.2)
    callback(3, 10, 1.5)
"""
VERB = """
from probes.display.progress import progress_bar
from probes.terminal import err
with progress_bar(err(), 3) as show:
    show('step 0 spectrum', 1)(27, 100, 2.5)
    time.sleep(0.2)
"""
STOPPED = """
def stop(*call):
    shown(*call)
    if call[0] > 3:
        raise KeyboardInterrupt
shown = progress('stopped')
eigsh(A, 1, callback=stop)
"""
STILL = "time.sleep(0.5)\nprint(shown._stop is not None)"


@pytest.fixture(scope="module")
def executed():
    """The outputs of each cell, and every version of what was shown, in order."""
    versions = []

    class Client(nbclient.NotebookClient):
        def process_message(self, message, cell, cell_index):
            if message["msg_type"] in ("display_data", "update_display_data"):
                versions.append((cell_index, message["content"]["data"]["text/plain"]))
            return super().process_message(message, cell, cell_index)

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
    notebook.cells[4].metadata["tags"] = ["raises-exception"]
    Client(notebook, kernel_name="python3", timeout=100).execute()
    return [cell.outputs for cell in notebook.cells], versions


CELLS = [SLOW, SEARCH, BLOCK, VERB, STOPPED, STILL]


def lines(outputs):
    assert all(output.output_type == "display_data" for output in outputs), outputs  # no warnings, no widgets
    return [output.data["text/plain"] for output in outputs]


def test_an_algorithm_is_one_line_that_ends_with_what_it_took(executed):
    outputs, versions = executed
    (line,) = lines(outputs[1])
    assert line.startswith("largest: λ₁ = ")
    assert " products in " in line
    shown = [text for cell, text in versions if cell == 1]
    assert len(shown) > 2
    assert any("of 1000 products" in text and "at most" in text and "left" in text for text in shown)


def test_a_block(executed):
    outputs, versions = executed
    (line,) = lines(outputs[2])
    assert line.startswith("trace: 1.5, 3 in ")
    assert (2, "trace: 0 s") in versions


def test_what_a_command_shows(executed):
    outputs, versions = executed
    (line,) = lines(outputs[3])
    assert line.startswith("3 of 3 in ")
    assert any("step 0 spectrum: 1 of 3, 2.5, 27 of 100, 0 s" in text for cell, text in versions if cell == 3)


def test_an_interrupted_cell_leaves_nothing_running(executed):
    outputs, versions = executed
    assert [output.output_type for output in outputs[4]] == ["display_data", "error"]
    assert "stopped: λ₁" in outputs[4][0].data["text/plain"]
    assert " products in " in outputs[4][0].data["text/plain"]
    assert outputs[5][0].text == "True\n"  # the failure still holds the callback
    # its last words came soon after it, and nothing after them
    ended = [i for i, (_, text) in enumerate(versions) if text.startswith("stopped") and "products in" in text]
    assert ended == [len(versions) - 1]
