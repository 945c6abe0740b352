"""Pydantic AI: the tool `python`, and a workspace of files and commands, on the machine of an agent's conversation.

>>> from pydantic_ai import Agent
>>> from torpor.tools.pydantic_ai import PythonToolset
>>> agent = Agent("anthropic:claude-sonnet-4-5", toolsets=[PythonToolset()])
>>> agent.run_sync("Plot sin(x).", conversation_id="thread-42").output

Needs `pip install 'torpor[pydantic-ai]'`.
"""

from __future__ import annotations

from ._toolset import PythonToolset
from ._workspace import MachineWorkspace, MachineWorkspaceBackend

__all__ = ["MachineWorkspace", "MachineWorkspaceBackend", "PythonToolset"]
