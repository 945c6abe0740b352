"""smolagents' published `CodeAgent` with a scripted model, and a machine on real gVisor."""

from __future__ import annotations

from typing import Any

from smolagents import CodeAgent, Tool
from smolagents.models import ChatMessage, MessageRole, Model

import torpor
from torpor.tools import machine_of
from torpor.tools.smolagents import TorporExecutor


class Scripted(Model):
    """Says one piece of code after the other."""

    def __init__(self, *codes: str) -> None:
        super().__init__(model_id="scripted")
        self.codes = list(codes)
        self.read: list[str] = []

    def generate(self, messages: Any, *_: Any, **__: Any) -> ChatMessage:
        self.read.append(str(messages[-1].content))
        return ChatMessage(role=MessageRole.ASSISTANT, content=f"<code>\n{self.codes.pop(0)}\n</code>")


class Doubling(Tool):  # type: ignore[misc]
    """A tool of the agent's own, which runs on the machine."""

    name = "doubled"
    description = "Twice a number."
    inputs = {"number": {"type": "integer", "description": "The number."}}  # noqa: RUF012
    output_type = "integer"

    def forward(self, number: int) -> int:
        return 2 * number


def agent(client: torpor.Client, conversation: str, *codes: str, tools: tuple[Any, ...] = ()) -> Any:
    executor = TorporExecutor(machine_of(client, conversation))
    return CodeAgent(tools=list(tools), model=Scripted(*codes), executor=executor, verbosity_level=0)


def test_an_agent_computes_reads_its_errors_and_answers(client: torpor.Client, conversation: str, later: Any) -> None:
    made = agent(
        client, conversation, "a = 3\nprint('three')", "1 / 0", "final_answer(doubled(a))", tools=(Doubling(),)
    )
    assert made.run("Compute.") == 6
    assert "three" in made.model.read[1]
    assert "ZeroDivisionError: division by zero" in made.model.read[2]
    assert later() == "8"


def later(conversation: str) -> str:
    """The same conversation in another process."""
    with torpor.Client() as client:
        return str(agent(client, conversation, "final_answer(a + 5)").run("Add."))


def test_a_figure_is_a_picture_for_the_agent(client: torpor.Client, conversation: str) -> None:
    executor = TorporExecutor(machine_of(client, conversation))
    output = executor("import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show(); print('drawn')")
    assert (output.logs, output.is_final_answer) == ("drawn\n", False)
    assert output.output.size[0] > 100


SCRIPTED = f"""
import runpy, smolagents
Scripted = runpy.run_path({__file__!r})["Scripted"]
smolagents.InferenceClientModel = lambda: Scripted("primes = [2, 3, 5]", "final_answer(primes[-1])")
model = smolagents.InferenceClientModel()
"""
"""The guide's model is a service's; this one says what it is to say."""


def test_the_guide(programs: Any) -> None:
    assert programs.guide("smolagents", before=SCRIPTED).splitlines()[-1] == "5"


def test_the_module_s_example(programs: Any) -> None:
    before = f"{SCRIPTED}\nimport torpor\nfrom torpor.tools.smolagents import TorporExecutor\n"
    printed = programs.docstring(torpor.tools.smolagents, before=before, after="print(agent.run('Count primes.'))")
    assert printed.splitlines()[-1] == "5"
