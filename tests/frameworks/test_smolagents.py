"""smolagents' published `CodeAgent` with a scripted model, and a machine on real gVisor."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

from smolagents import CodeAgent, Tool
from smolagents.models import ChatMessage, MessageRole, Model

import torpor
from torpor.tools import machine_of
from torpor.tools.smolagents import TorporExecutor

PLOT = "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show(); print('drawn')"


class Scripted(Model):
    """Says one piece of code after the other."""

    def __init__(self, *codes: str) -> None:
        super().__init__(model_id="scripted")
        self.codes = list(codes)
        self.read: list[str] = []
        self.figures: list[Any] = []
        self.messages: list[Any] = []

    def generate(self, messages: Any, *_: Any, **__: Any) -> ChatMessage:
        self.read.append(str(messages[-1].content))
        self.messages = [message.content for message in messages]
        parts = [part for message in messages for part in message.content]
        self.figures = [part["image"] for part in parts if part["type"] == "image"]
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
    executor = TorporExecutor(client, conversation)
    return CodeAgent(
        tools=list(tools),
        model=Scripted(*codes),
        executor=executor,
        step_callbacks=[executor.show_figures],
        verbosity_level=0,
    )


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


def test_the_model_sees_figures(client: torpor.Client, conversation: str) -> None:
    made = agent(client, conversation, PLOT, "1 + 1", "final_answer(3)")
    assert made.run("Draw.") == 3
    assert "[a figure]\\ndrawn" in made.model.read[1]
    (figure,) = made.model.figures
    assert figure.size[0] > 100


def test_the_model_is_told_of_a_recovery_by_its_own_code(
    client: torpor.Client, conversation: str, recovered: Any
) -> None:
    recovered()
    made = agent(client, conversation, "kept + 5", "final_answer(doubled(kept))", tools=(Doubling(),))
    assert made.run("Compute.") == 6
    assert "[notice] " in made.model.read[1]


def test_a_notice_that_came_with_the_final_answer_is_in_the_agent_s_memory(
    client: torpor.Client, conversation: str, recovered: Any
) -> None:
    recovered()
    made = agent(client, conversation, "final_answer(kept + 5)", "final_answer(3)")
    assert made.run("Add.") == 8
    made.run("Go on.", reset=False)
    assert any("[notice] " in str(message) for message in made.model.messages)


def test_what_code_has_said_before_its_error_is_read_with_it(client: torpor.Client, conversation: str) -> None:
    made = agent(client, conversation, "print('before')\n1 / 0", "final_answer(3)")
    made.run("Fail.")
    assert "before" in made.model.read[1]
    assert "ZeroDivisionError: division by zero" in made.model.read[1]


def test_a_flood_is_cut_and_can_be_read_on(client: torpor.Client, conversation: str) -> None:
    made = agent(client, conversation, "for i in range(9999): print('line', i)", "%output 1 12000", "final_answer(3)")
    made.run("Flood.")
    assert len(made.model.read[1]) < 20_000
    assert "characters are left out" not in made.model.read[1]
    assert "`%output " in made.model.read[1]
    assert "characters follow" in made.model.read[2]


def test_a_final_answer_is_read_as_data_only(client: torpor.Client, conversation: str) -> None:
    forged = "class FinalAnswerException(BaseException): pass\nraise FinalAnswerException('pickle:gASVAAAA')"
    made = agent(client, conversation, forged, "final_answer((1, 'two', {3}))")
    assert made.run("Answer.") == (1, "two", {3})
    assert "Pickle data rejected" in made.model.read[1]


def test_ctrl_c_ends_the_code(client: torpor.Client, conversation: str, started: Any) -> None:
    machine = machine_of(client, conversation)
    machine.run("a = 3")
    program = (
        "import signal, torpor; from torpor.tools.smolagents import TorporExecutor\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # tests in a shell's background have it ignored
        f"TorporExecutor(torpor.Client(), {conversation!r})('import time\\nwhile True: time.sleep(1)')"
    )
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) as process:
        started(machine)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert said.strip().endswith(b"KeyboardInterrupt"), said.decode()
    assert machine.run("a", queue=True).value == "3"
    assert machine.instruction(1).ended_by == "interrupt"


def test_an_executor_gives_a_value_a_figure_or_both(client: torpor.Client, conversation: str) -> None:
    executor = TorporExecutor(machine_of(client, conversation))
    assert executor("3 + 5").output == "8"
    drawn = executor(f"{PLOT}")
    assert (drawn.logs, drawn.is_final_answer) == ("[a figure]\ndrawn\n", False)
    assert drawn.output.size[0] > 100
    both = executor(f"{PLOT}\n8")
    assert both.output == "8"
    assert len(executor.figures) == 1


def test_the_guide(programs: Any, model: Any) -> None:
    model.answers = [chat("primes = [2, 3, 5]"), chat("final_answer(primes[-1])"), chat("final_answer(len(primes))")]
    assert [line for line in programs.guide("smolagents").splitlines() if line in ("5", "3")] == ["5", "3"]


def test_the_module_s_example(programs: Any) -> None:
    before = f"""
import runpy, torpor
from torpor.tools.smolagents import TorporExecutor
model = runpy.run_path({__file__!r})["Scripted"]("primes = [2, 3, 5]", "final_answer(len(primes))")
"""
    printed = programs.docstring(torpor.tools.smolagents, before=before, after="print(agent.run('Count primes.'))")
    assert printed.splitlines()[-1] == "3"


def chat(code: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": f"Thought: so.\n<code>\n{code}\n</code>"}
    return {
        "id": "chat_1",
        "object": "chat.completion",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
