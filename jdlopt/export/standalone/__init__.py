"""What a bundle carries to predict without jdlopt; the server and ``predict --bundle`` use it too.

The modules here import the standard library, NumPy and onnxruntime alone. `source` puts them into
one file, so that what a bundle's ``predict.py`` computes is what is tested here.
"""

from __future__ import annotations

import ast
from importlib import resources

MODULES = ("opening", "examples", "answers", "command")
"""In the order in which they know each other."""
DOCSTRING = '''\
"""Predicts with the model that lies beside this file: ``python predict.py INPUT``.

Needs Python 3.10 or later, NumPy and onnxruntime, and nothing else. INPUT is a CSV with the columns
of the training data, an NPZ file of arrays, JSON (``{"rows": [{...}]}``, or a request of the Open
Inference Protocol), or, with Pillow, an image or a folder of them. The predictions are a CSV on
stdout. ``python predict.py --check`` predicts for the example request and compares the answer.

Before anything is loaded, the SHA-256 of every file is compared with that of ``manifest.json``.
"""
'''
FUTURE = "from __future__ import annotations\n"
CALL = '\n\nif __name__ == "__main__":\n    sys.exit(main(sys.argv[1:]))\n'


def source() -> str:
    """Returns the text of ``predict.py``: all modules as one, in their order."""
    parts = [_without_imports_of_each_other(_text(name)) for name in MODULES]
    return "\n".join([DOCSTRING, FUTURE, *parts]) + CALL


def _text(name: str) -> str:
    return (resources.files(__name__) / f"{name}.py").read_text("utf-8")


def _without_imports_of_each_other(text: str) -> str:
    """Returns a module without its docstring and what one file needs once or not at all."""
    lines, found = text.splitlines(), ast.parse(text).body
    left_out = {
        number
        for node in found
        if (
            isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("jdlopt", "__fut"))
        )
        or node is found[0]
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    kept = [line for number, line in enumerate(lines, start=1) if number not in left_out]
    return "\n".join(kept).strip("\n") + "\n"
