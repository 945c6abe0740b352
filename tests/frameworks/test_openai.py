"""OpenAI's published client, a scripted model behind its wire, and a machine on real gVisor."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from openai import OpenAI

import torpor
from torpor.tools.openai import INSTRUCTIONS, ChatTool, ResponsesTool

PLOT = "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show(); print('drawn')"


def arguments(code: str) -> str:
    return json.dumps({"code": code, "timeout_seconds": None})


def response(*output: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "scripted",
        "output": list(output),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


def call(call_id: str, code: str) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{call_id}",
        "call_id": call_id,
        "name": "python",
        "arguments": arguments(code),
    }


def saying(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}


def completion(*calls: tuple[str, str], text: str | None = None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {"id": call_id, "type": "function", "function": {"name": "python", "arguments": arguments(code)}}
            for call_id, code in calls
        ]
    return {
        "id": "chat_1",
        "object": "chat.completion",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}],
    }


def test_responses_run_code_and_read_text_images_and_errors(
    client: torpor.Client, conversation: str, model: Any, later: Any
) -> None:
    model.answers = [
        response(call("c1", "a = 3"), call("c2", PLOT)),
        response(call("c3", "1 / 0")),
        response(saying("done")),
    ]
    messages: list[Any] = [{"role": "user", "content": "Draw."}]
    python = ResponsesTool(client, conversation)
    with OpenAI(base_url=f"{model.url}/v1", api_key="none") as openai:
        while True:
            answer = openai.responses.create(
                model="scripted", input=messages, tools=[python.schema], instructions=INSTRUCTIONS
            )
            outputs = python.outputs(answer)
            if not outputs:
                break
            assert python.outputs(answer) == outputs  # run again, nothing is run again
            messages += [*answer.output, *outputs]
    assert answer.output_text == "done"
    tool = model.requests[0]["tools"][0]
    assert (tool["name"], tool["strict"]) == ("python", True)
    first, second = model.requests[1]["input"][-2:]
    assert first == {"type": "function_call_output", "call_id": "c1", "output": "(no output)"}
    assert [part["type"] for part in second["output"]] == ["input_text", "input_image"]
    assert second["output"][1]["image_url"].startswith("data:image/png;base64,iVBOR")
    assert model.requests[2]["input"][-1]["output"].endswith("ZeroDivisionError: division by zero")
    assert later(model.url) == "8"
    history = [row.code for row in client.machine(conversation).history()]
    assert history == ["a + 5", "1 / 0", PLOT, "a = 3"]


def later(conversation: str, url: str) -> str:
    """The same conversation in another process; the model of before is gone, and its next words are these."""
    from openai.types.responses import Response

    with torpor.Client() as client:
        outputs = ResponsesTool(client, conversation).outputs(Response.model_validate(response(call("c4", "a + 5"))))
        return str(outputs[0]["output"])


def test_chat_completions_have_images_in_a_message_of_the_users(
    client: torpor.Client, conversation: str, model: Any
) -> None:
    model.answers = [completion(("c1", "a = 3"), ("c2", PLOT)), completion(text="done")]
    messages: list[Any] = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": "Draw."}]
    python = ChatTool(client, conversation)
    with OpenAI(base_url=f"{model.url}/v1", api_key="none") as openai:
        answer = openai.chat.completions.create(model="scripted", messages=messages, tools=[python.schema])
        message = answer.choices[0].message
        more = python.messages(message)
        messages += [message, *more]
        answer = openai.chat.completions.create(model="scripted", messages=messages, tools=[python.schema])
    assert answer.choices[0].message.content == "done"
    sent = model.requests[1]["messages"][-3:]
    assert [each["role"] for each in sent] == ["tool", "tool", "user"]
    assert (sent[0]["tool_call_id"], sent[0]["content"]) == ("c1", "(no output)")
    assert sent[2]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")


async def test_the_asynchronous_twins_answer_the_same(conversation: str) -> None:
    from openai.types.chat import ChatCompletion
    from openai.types.responses import Response

    async with torpor.AsyncClient() as client:
        asked = Response.model_validate(
            response(
                call("c1", "a = 3; a"),
                {"type": "function_call", "id": "x", "call_id": "x", "name": "other", "arguments": "{}"},
            )
        )
        outputs = await ResponsesTool(client, conversation).aoutputs(asked)
        assert [output["output"] for output in outputs] == ["3"]
        message = ChatCompletion.model_validate(completion(("c2", "a + 5"))).choices[0].message
        (answer,) = await ChatTool(client, conversation).amessages(message)
        assert answer["content"] == "8"


async def test_a_cancelled_answer_ends_its_code_and_the_calls_behind_it(
    client: torpor.Client, conversation: str, started: Any
) -> None:
    from openai.types.responses import Response

    client.machine(conversation).run("a = 3")
    endless = "import time\nwhile True: time.sleep(1)"
    asked = Response.model_validate(response(call("c1", endless), call("c2", "a = 4")))
    async with torpor.AsyncClient() as asynchronous:
        running = asyncio.ensure_future(ResponsesTool(asynchronous, conversation).aoutputs(asked))
        await asyncio.to_thread(started, client.machine(conversation))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert client.machine(conversation).run("a", queue=True).value == "3"
    assert client.machine(conversation).instruction(1).ended_by == "interrupt"


def test_the_model_is_told_of_a_recovery_once(client: torpor.Client, conversation: str, recovered: Any) -> None:
    from openai.types.responses import Response

    recovered()
    asked = Response.model_validate(response(call("c1", "kept"), call("c2", "kept + 5")))
    told, again = [output["output"] for output in ResponsesTool(client, conversation).outputs(asked)]
    assert str(told).startswith("3\n[notice] ")
    assert again == "8"


def test_what_is_too_long_for_an_answer_is_read_on(client: torpor.Client, conversation: str) -> None:
    from openai.types.responses import Response

    python = ResponsesTool(client, conversation, limit_tokens=500)

    def said(call_id: str, code: str) -> str:
        (output,) = python.outputs(Response.model_validate(response(call(call_id, code))))
        return str(output["output"])

    shown = said("c1", "for i in range(1000): print('line', i)")
    assert shown.startswith("line 0\n")
    assert shown.endswith("line 999")
    more = said("c2", shown.split("`")[1])
    assert more.startswith(f"line {shown.count(chr(10), 0, shown.index('[…'))}\n")
    assert [row.seq for row in client.machine(conversation).history()] == [0]


def test_the_guide(programs: Any, model: Any) -> None:
    model.answers = [response(call("guide_1", PLOT)), response(saying("drawn"))]
    model.answers += [completion(("guide_2", "3 + 5")), completion(text="8")]
    assert programs.guide("openai").split() == ["drawn", "8"]


def test_the_module_s_example(programs: Any, model: Any) -> None:
    model.answers = [response(call("docstring_1", "3 + 5"))]
    before = """
import torpor
from torpor.tools.openai import INSTRUCTIONS, ResponsesTool
MODEL, messages = "gpt-5.1", [{"role": "user", "content": "Add."}]
"""
    printed = programs.docstring(torpor.tools.openai, before=before, after="print(messages[-1]['output'])")
    assert printed == "8\n"
