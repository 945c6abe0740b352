"""Tools for language models: a Python computer that is always there, in whatever framework is used.

>>> from torpor import Client
>>> from torpor.tools import INSTRUCTIONS, PythonTool
>>> tool = PythonTool(Client(), conversation="thread-42")
>>> tool.call({"code": "a = 3; a + 5"}, call_id="call_1").text
'8'

Each framework has a module of its own beside this one, and an extra: `pip install 'torpor[openai]'`.
"""

from __future__ import annotations

from ._binding import machine_of
from ._callable import AsyncPythonFunction, PythonFunction
from ._python import PythonTool
from ._rendering import Rendered, render
from ._words import DESCRIPTION, INSTRUCTIONS, PARAMETERS

__all__ = [
    "DESCRIPTION",
    "INSTRUCTIONS",
    "PARAMETERS",
    "AsyncPythonFunction",
    "PythonFunction",
    "PythonTool",
    "Rendered",
    "machine_of",
    "render",
]
