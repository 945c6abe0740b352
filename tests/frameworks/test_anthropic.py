"""Anthropic's published client, a scripted model behind its wire, and a machine on real gVisor."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import Message

import torpor
from torpor.tools.anthropic import INSTRUCTIONS, MessagesTool, beta_async_python_tool, beta_python_tool

PLOT = "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show(); print('drawn')"


def message(*content: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": list(content),
        "stop_reason": "tool_use" if content[-1]["type"] == "tool_use" else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }


def use(call_id: str, code: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": "python", "input": {"code": code}}


SAYING = {"type": "text", "text": "done"}


def test_messages_run_code_and_read_text_images_and_errors(
    client: torpor.Client, conversation: str, model: Any, later: Any
) -> None:
    model.answers = [message(use("t1", "a = 3"), use("t2", PLOT)), message(use("t3", "1 / 0")), message(SAYING)]
    messages: list[Any] = [{"role": "user", "content": "Draw."}]
    python = MessagesTool(client, conversation)
    with Anthropic(base_url=model.url, api_key="none") as anthropic:
        while True:
            answer = anthropic.messages.create(
                model="scripted", system=INSTRUCTIONS, messages=messages, tools=[python.schema], max_tokens=100
            )
            results = python.results(answer)
            if not results:
                break
            assert python.results(answer) == results  # run again, nothing is run again
            messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    first, second = model.requests[1]["messages"][-1]["content"]
    assert (first["tool_use_id"], first["content"][0]["text"], first["is_error"]) == ("t1", "(no output)", False)
    assert [block["type"] for block in second["content"]] == ["text", "image"]
    assert second["content"][1]["source"]["data"].startswith("iVBOR")
    failed = model.requests[2]["messages"][-1]["content"][0]
    assert failed["is_error"]
    assert failed["content"][0]["text"].endswith("ZeroDivisionError: division by zero")
    assert later() == "8"
    assert [row.code for row in client.machine(conversation).history()] == ["a + 5", "1 / 0", PLOT, "a = 3"]


def later(conversation: str) -> str:
    """The same conversation in another process."""
    with torpor.Client() as client:
        asked = Message.model_validate(message(use("t4", "a + 5")))
        (result,) = MessagesTool(client, conversation).results(asked)
        return str(next(iter(result["content"]))["text"])  # type: ignore[index]


def test_the_model_is_told_of_a_recovery_once(client: torpor.Client, conversation: str, recovered: Any) -> None:
    recovered()
    asked = Message.model_validate(message(use("t1", "kept"), use("t2", "kept + 5")))
    results: list[Any] = MessagesTool(client, conversation).results(asked)
    told, again = [result["content"][0]["text"] for result in results]
    assert told.startswith("3\n[notice] ")
    assert again == "8"


def test_the_tool_runner_goes_on_to_the_models_last_word(client: torpor.Client, conversation: str, model: Any) -> None:
    model.answers = [message(use("t1", "a = 3; a")), message(use("t2", "1 / 0")), message(SAYING)]
    with Anthropic(base_url=model.url, api_key="none") as anthropic:
        runner = anthropic.beta.messages.tool_runner(
            model="scripted",
            max_tokens=100,
            tools=[beta_python_tool(client, conversation)],
            messages=[{"role": "user", "content": "Compute."}],
        )
        assert runner.until_done().content[0].text == "done"  # type: ignore[union-attr]
    (first,) = model.requests[1]["messages"][-1]["content"]
    assert first["content"][0]["text"] == "3"
    (second,) = model.requests[2]["messages"][-1]["content"]
    assert second["is_error"]


async def test_the_asynchronous_twins_do_the_same(conversation: str, model: Any) -> None:
    model.answers = [message(use("t1", "a = 3; a")), message(SAYING)]
    async with torpor.AsyncClient() as client, AsyncAnthropic(base_url=model.url, api_key="none") as anthropic:
        runner = anthropic.beta.messages.tool_runner(
            model="scripted",
            max_tokens=100,
            tools=[beta_async_python_tool(client, conversation)],
            messages=[{"role": "user", "content": "Compute."}],
        )
        await runner.until_done()
        (result,) = await MessagesTool(client, conversation).aresults(
            Message.model_validate(message(use("t2", "a + 5")))
        )
    assert model.requests[1]["messages"][-1]["content"][0]["content"][0]["text"] == "3"
    assert next(iter(result["content"]))["text"] == "8"  # type: ignore[index]


async def test_a_cancelled_answer_ends_its_code_and_the_calls_behind_it(
    client: torpor.Client, conversation: str, started: Any
) -> None:
    machine = client.machine(conversation)
    machine.run("a = 3")
    asked = Message.model_validate(message(use("t1", "import time\nwhile True: time.sleep(1)"), use("t2", "a = 4")))
    running = asyncio.ensure_future(MessagesTool(client, conversation).aresults(asked))
    await asyncio.to_thread(started, machine)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert machine.run("a", queue=True).value == "3"
    assert machine.instruction(1).ended_by == "interrupt"


def test_the_guide(programs: Any) -> None:
    count, last = {"code": "primes = [2, 3, 5]; len(primes)"}, {"code": "primes[-1]"}
    assert programs.guide("anthropic", count, last).split() == ["3", "5"]


def test_the_module_s_example(programs: Any, model: Any) -> None:
    model.answers = [message(use("toolu_docstring", "a = 3; a + 5"))]
    before = """
import torpor
from torpor.tools.anthropic import INSTRUCTIONS, MessagesTool
MODEL, messages = "claude-sonnet-4-5", [{"role": "user", "content": "Add."}]
"""
    printed = programs.docstring(torpor.tools.anthropic, before=before, after="print(messages[-1]['content'][0])")
    assert "'text': '8'" in printed


def test_the_recipe_of_a_data_analysis_agent(programs: Any) -> None:
    total = {"code": "import pandas as pd; sales = pd.read_csv('sales.csv'); int(sales.amount.sum())"}
    figure = {"code": "sales.plot('month').figure.savefig('sales.png'); print('saved')"}
    printed = programs.page("recipes/data-analysis-agent", total, figure).splitlines()
    assert printed == ["8", "saved", "[a figure]", f"1 {figure['code']}", f"0 {total['code']}"]
