"""OpenAI's Agents SDK: the tool `python` for any agent, and machines as the sandboxes of a `SandboxAgent`.

>>> from agents import Agent, RunConfig, Runner
>>> from torpor.tools.openai_agents import INSTRUCTIONS, python_tool
>>> agent = Agent("Analyst", instructions=INSTRUCTIONS, tools=[python_tool()])
>>> Runner.run_sync(agent, "Plot sin(x).", run_config=RunConfig(group_id="thread-42"))

Needs `pip install 'torpor[openai-agents]'`.
"""

from __future__ import annotations

from .._words import INSTRUCTIONS
from ._client import TorporSandboxClient, TorporSandboxClientOptions
from ._session import TorporSandboxSession, TorporSandboxSessionState
from ._tool import python_tool

__all__ = [
    "INSTRUCTIONS",
    "TorporSandboxClient",
    "TorporSandboxClientOptions",
    "TorporSandboxSession",
    "TorporSandboxSessionState",
    "python_tool",
]
