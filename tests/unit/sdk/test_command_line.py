"""The command `torpor`, against a stub server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.stub_server import API_KEY, Cut, Script, StubServer
from tests.support.terminal import COMMAND
from typer.main import get_command
from typer.testing import CliRunner, Result

from torpor import _cli
from torpor._commands._sources import help_of
from torpor._repl.cell import is_complete, next_indent

FIGURE = {"type": "display", "data": {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"}}


@pytest.fixture
def settings(stub: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORPOR_URL", stub.url)
    monkeypatch.setenv("TORPOR_API_KEY", API_KEY)


@pytest.fixture
def name(stub: StubServer) -> str:
    return stub.new_machine()


def torpor(*arguments: str, stdin: str | None = None, width: int = 80) -> Result:
    return CliRunner(env={"COLUMNS": str(width)}).invoke(_cli.app, list(arguments), input=stdin)


pytestmark = pytest.mark.usefixtures("settings")


def test_new_prints_the_name_alone(stub: StubServer) -> None:
    result = torpor("new", "--tag", "user=42", "--memory", "512", "--idle", "never", "--template", "data")
    assert result.stdout == "machine000000000\n"
    assert stub.bodies == [{"tags": {"user": "42"}, "memory_mb": 512, "template": "data", "idle_seconds": None}]


def test_run_writes_output_where_it_belongs_and_the_value_last(stub: StubServer, name: str) -> None:
    stub.says("a + 5", {"type": "stdout", "text": "adding"}, {"type": "stderr", "text": "careful\n"}, value="8")
    result = torpor("run", "-m", name, "-c", "a + 5")
    assert (result.stdout, result.stderr, result.exit_code) == ("adding\n8\n", "careful\n", 0)


def test_run_takes_code_from_a_file_and_from_a_pipe(stub: StubServer, name: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("a = 3\n")
    torpor("run", "-m", name, str(tmp_path / "script.py"))
    torpor("run", "-m", name, stdin="a + 5\n")
    torpor("run", "-m", name, "-", stdin="a\n")
    assert stub.ran == ["a = 3\n", "a + 5\n", "a\n"]


def test_run_without_a_machine_names_the_new_one_beside_the_output(stub: StubServer) -> None:
    stub.says("3", value="3")
    result = torpor("run", "-c", "3")
    assert (result.stdout, result.stderr) == ("3\n", "[new machine: machine000000000]\n")


def test_an_error_of_the_code_is_its_traceback_and_exit_status_1(stub: StubServer, name: str) -> None:
    detail = {"name": "ValueError", "message": "no", "traceback": ["Traceback:\n", "ValueError: no"]}
    stub.says("raise", error="ValueError: no", error_detail=detail)
    result = torpor("run", "-m", name, "-c", "raise")
    assert (result.stdout, result.stderr, result.exit_code) == ("", "Traceback:\nValueError: no\n", 1)


@pytest.mark.parametrize(
    ("message", "status", "said"),
    [
        ("4", 4, ""),
        ("", 0, ""),
        ("None", 0, ""),
        ("0", 0, ""),
        ("256", 0, ""),
        ("-1", 255, ""),
        ("no disk left", 1, "no disk left\n"),
        ("9" * 5000, 1, "9" * 5000 + "\n"),
    ],
)
def test_the_exit_status_is_that_of_the_codes_own_sys_exit(
    stub: StubServer, name: str, message: str, status: int, said: str
) -> None:
    detail = {"name": "SystemExit", "message": message, "traceback": ["Traceback:", "SystemExit"]}
    stub.says("leave()", error=f"SystemExit: {message}", error_detail=detail)
    result = torpor("run", "-m", name, "-c", "leave()")
    assert (result.exit_code, result.stderr) == (status, said)
    assert torpor("run", "-m", name, "-c", "leave()", "--json").exit_code == status
    followed = torpor("output", name, "0", "--follow")
    assert (followed.exit_code, followed.stderr) == (status, said)
    assert torpor("output", name, "0").exit_code == 0


def test_a_machine_may_be_named_in_the_environment(
    stub: StubServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORPOR_MACHINE", name)
    torpor("run", "-c", "a")
    assert [ran.code for ran in stub.machines[name]] == ["a"]


def test_output_is_what_run_would_have_written(stub: StubServer, name: str) -> None:
    stub.says(
        "f()",
        {"type": "stdout", "text": "out\x1b]0;raw in a pipe\x07\n"},
        {"type": "stderr", "text": "err\n"},
        value="8",
    )
    ran = torpor("run", "-m", name, "-c", "f()")
    assert ran.stdout == "out\x1b]0;raw in a pipe\x07\n8\n"
    for arguments in ((name, "0"), (name,), (name, "0", "--follow")):
        again = torpor("output", *arguments)
        assert (again.stdout, again.stderr) == (ran.stdout, ran.stderr)
    assert json.loads(torpor("output", name, "0", "--json").stdout)["result"]["value"] == "8"
    events = [json.loads(line) for line in torpor("output", name, "--follow", "--json").stdout.splitlines()]
    assert [event["type"] for event in events] == ["stdout", "stderr", "result"]


def test_output_of_what_still_runs_is_what_there_is_and_where_the_rest_will_be(stub: StubServer, name: str) -> None:
    stub.scripts["spin()"] = Script([{"type": "stdout", "text": "so far"}], blocks=True)
    stub.execute(name, "spin()")
    result = torpor("output", name)
    assert result.stdout == "so far"
    assert result.stderr == f"[instruction 0 is running; to read on: torpor output {name} 0 --follow]\n"
    stub.on_block = stub.machines[name][0].interrupted.set
    assert torpor("output", name, "--follow").stdout == "so far"


def test_run_in_json_is_one_object_that_holds_everything(stub: StubServer, name: str) -> None:
    stub.says("f()", {"type": "stdout", "text": "x\n"}, FIGURE, error="ValueError: no")
    result = torpor("run", "-m", name, "-c", "f()", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert told["stdout"] == "x\n"
    assert told["error"] == {"name": "ValueError", "message": "no", "traceback": []}
    assert (told["machine_name"], told["instruction_seq"]) == (name, 0)
    assert told["displays"][0]["data"]["text/plain"] == "<Figure>"


def test_pictures_are_written_into_a_folder(stub: StubServer, name: str, tmp_path: Path) -> None:
    stub.says("plot()", FIGURE, value=None)
    assert torpor("run", "-m", name, "-c", "plot()").stdout == "<Figure>\n"
    torpor("run", "-m", name, "-c", "plot()", "--pictures", str(tmp_path / "plots"))
    assert (tmp_path / "plots" / "picture-1.png").read_bytes() == b"\x89PNG\r\n\x1a\n"


def test_output_survives_a_cut_connection(stub: StubServer, name: str) -> None:
    stub.says("f()", *({"type": "stdout", "text": f"{number}\n"} for number in range(3)), value=None)
    stub.faults.append(Cut(1))
    assert torpor("run", "-m", name, "-c", "f()").stdout == "0\n1\n2\n"
    assert stub.ran == ["f()"]


def test_text_that_the_terminal_cannot_show_does_no_harm(stub: StubServer, name: str) -> None:
    stub.says("f()", {"type": "stdout", "text": "\udcff\n"}, value="'\\ud800'")
    assert torpor("run", "-m", name, "-c", "f()").exit_code == 0


def test_ctrl_c_ends_the_code_and_not_the_client(stub: StubServer, name: str) -> None:
    stub.scripts["spin()"] = Script(result={"error": "KeyboardInterrupt", "runtime_ms": 9}, blocks=True)
    stub.on_block = lambda: os.kill(os.getpid(), signal.SIGINT)
    result = torpor("run", "-m", name, "-c", "spin()")
    assert (result.stderr, result.exit_code) == ("KeyboardInterrupt\n", 130)
    assert stub.requests[-1][1].endswith("/interrupt")


def test_ls_is_one_line_a_machine_in_a_pipe(stub: StubServer, name: str) -> None:
    line = torpor("ls").stdout
    assert line.split("\t")[:3] == [name, "", "asleep"]
    assert line.endswith("\t4.1 KB\tuser=42\n")
    assert torpor("ls", "-q").stdout == f"{name}\n"
    assert json.loads(torpor("ls", "--json").stdout)[0]["tags"] == {"user": "42"}


def test_log_shows_the_newest_last_and_one_with_all_of_its_output(stub: StubServer, name: str) -> None:
    stub.says("a\nb", {"type": "stdout", "text": "hello\n"}, value="8")
    stub.execute(name, "x = 1")
    stub.execute(name, "a\nb")
    lines = torpor("log", name).stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["0", "1"]
    assert lines[1].split("\t")[2:] == ["a…", "8"]
    assert torpor("log", name, "1").stdout == ">>> a\n>>> b\nhello\n8\n"


def test_small_commands_say_what_they_did(stub: StubServer, name: str) -> None:
    assert torpor("whoami").stdout == f"acme at {stub.url}\n"
    assert "memory_mb\t1024\n" in torpor("show", name).stdout
    assert torpor("interrupt", name).stderr == f"{name} is interrupted.\n"
    assert torpor("sync", name).stderr == f"All of {name} is stored.\n"
    assert torpor("sleep", name).stderr == f"{name} is asleep.\n"
    assert torpor("rm", name).stderr == f"{name} is deleted.\n"
    assert not stub.machines


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("interrupt",), {"interrupted": True}),
        (("sleep",), {"state": "asleep"}),
        (("sync",), {"synced": True}),
        (("set", "--memory", "512"), {"memory_mb": 512, "durability": "interval"}),
    ],
)
def test_small_commands_answer_programs_with_an_object(
    name: str, arguments: tuple[str, ...], answer: dict[str, object]
) -> None:
    command, *options = arguments
    told = json.loads(torpor(command, name, *options, "--json").stdout)
    assert told["machine_name"] == name
    assert answer.items() <= told.items()


def test_tags_and_deletions_are_json_too(name: str) -> None:
    assert json.loads(torpor("tag", name, "a=1", "--json").stdout) == {"user": "42", "a": "1"}
    result = torpor("rm", name, "--json")
    assert (json.loads(result.stdout), result.stderr) == ({"deleted": [name]}, "")


def test_every_command_of_ours_has_an_example_and_takes_json() -> None:
    groups = {"debug", "key", "mcp"}
    without_json = groups | {"repl", "completion"}
    for command, entry in _cli.installed().items():
        if not entry.value.startswith("torpor._commands."):
            continue
        text = torpor(command, "--help", width=300).stdout
        assert "--json" in text or command in without_json, command
        if command not in groups:
            assert f" torpor {command}" in text or " --how retry" in text, command


def test_help_groups_the_commands_and_imports_none_of_them() -> None:
    code = (
        "import sys; from torpor._cli import app\n"
        "try: app(['--help'], standalone_mode=False)\n"
        "finally: print([name for name in sys.modules if name.startswith(('torpor_api', 'torpor._co', 'httpx2'))])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.splitlines()[-1] == "['torpor._commands', 'torpor._commands._hints', 'torpor._commands._sources']"
    for panel in ("Machines", "Code", "Back, and aside", "You", "Servers"):
        assert f"─ {panel} ─" in ran.stdout
    assert "fsck        Check that the store has all" in ran.stdout


def test_what_help_reads_from_the_source_is_what_the_command_says() -> None:
    for command, entry in _cli.installed().items():
        loaded = get_command(entry.load()).help or ""
        assert (help_of(entry) or "").split("\n")[0] == loaded.split("\n")[0], command


def complete(line: str, **environment: str) -> list[str]:
    """What bash would be offered at the end of a line."""
    words = line.split(" ")
    ran = subprocess.run(
        [COMMAND],
        env={**os.environ, "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), **environment}
        | {"_TORPOR_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stderr == ""
    return ran.stdout.split()


def test_tab_completes_commands_options_and_machines(stub: StubServer, name: str) -> None:
    other = stub.new_machine()
    assert complete("torpor sh") == ["show"]
    assert complete("torpor show ") == [other, name]
    assert complete(f"torpor rm {name[:-1]}0") == [name]
    assert complete("torpor run -m ") == [other, name]
    assert "--timeout" in complete("torpor run --t")


def test_tab_is_silent_where_the_server_is(stub: StubServer) -> None:
    assert complete("torpor show ", TORPOR_URL="http://127.0.0.1:1") == []
    assert complete("torpor show ", TORPOR_API_KEY="wrong.key") == []
    assert complete("torpor show ", TORPOR_API_KEY="", HOME="/nonexistent", XDG_CONFIG_HOME="/nonexistent") == []


def test_completion_is_a_script_that_the_shell_can_run(tmp_path: Path, name: str) -> None:
    printed = torpor("completion", "bash").stdout
    words = f"COMP_WORDS=(torpor show {name[:4]}); COMP_CWORD=2"
    line = f"source /dev/stdin; {words}; _torpor_completion torpor; echo $COMPREPLY"
    ran = subprocess.run(
        ["bash", "-c", line],
        input=printed,
        env={**os.environ, "PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout == f"{name}\n"
    for shell, place in {
        "bash": ".local/share/bash-completion/completions/torpor",
        "zsh": ".zfunc/_torpor",
        "fish": "config/fish/completions/torpor.fish",
    }.items():
        assert torpor("completion", shell, "--install").exit_code == 0
        assert (tmp_path / place).read_text() == torpor("completion", shell).stdout


def test_set_and_tag_change_what_they_name_and_say_what_is_there_then(stub: StubServer, name: str) -> None:
    said = torpor("set", name, "--idle", "never", "--memory", "2048", "--durability", "instruction").stderr
    assert said == f"{name} has 2048 MB, stays awake; durability instruction, recovery replay.\n"
    assert torpor("tag", name, "a=1", "b=", "--remove", "user").exit_code == 0
    assert torpor("tag", name).stdout == "user=42\n"
    assert stub.bodies == [
        {"memory_mb": 2048, "durability": "instruction", "idle_seconds": None},
        {"tags": {"user": None, "a": "1", "b": ""}},
        {},
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run", "-m", "nobody0000000000", "-c", "1"), "No machine of this name belongs to the account."),
        (("run", "no such file.py"), "no such file.py cannot be read: No such file or directory."),
        (("run", "file.py", "-c", "1"), "There is both a file and -c; only one can run."),
        (("new", "--tag", "user"), "The tag 'user' is not of the form name=value."),
        (("new", "--idle", "soon"), "--idle takes a number of seconds or `never`, not 'soon'."),
        (("set", "machine"), "Nothing to change was named."),
        (("repl",), "There is no terminal to talk on."),
        (("completion", "tcsh"), "There is no completion for 'tcsh'."),
    ],
)
def test_trouble_is_one_sentence_and_exit_status_3(arguments: tuple[str, ...], sentence: str) -> None:
    result = torpor(*arguments)
    assert result.exit_code == _cli.TROUBLE
    assert result.stderr.splitlines()[0] == f"torpor: {sentence}"
    assert "Traceback" not in result.stderr


def test_an_error_says_what_to_do_in_commands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "`torpor new --name NAME` makes one" in torpor("show", "nobody0000000000").stderr
    monkeypatch.setenv("TORPOR_API_KEY", "wrong.key")
    assert "`torpor login` asks for a key" in torpor("show", name).stderr


def test_help_shows_every_command_with_a_sentence() -> None:
    result = torpor("--help")
    for command in ("new", "run", "repl", "ls", "show", "log", "interrupt", "set", "tag", "sleep", "rm", "whoami"):
        assert command in result.stdout
        assert torpor(command, "--help").exit_code == 0


def test_a_command_that_cannot_be_loaded_says_why_and_leaves_the_others_alone(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    installed = _cli.installed()
    broken = EntryPoint("broken", "no_such_module_of_ours:app", _cli.GROUP)
    monkeypatch.setattr(_cli, "installed", lambda: {**installed, "broken": broken})
    assert "cannot be loaded: ModuleNotFoundError" in " ".join(torpor("--help").stdout.split())
    result = torpor("broken", "--option", "argument")
    assert result.stderr.startswith("torpor: The command `broken` cannot be loaded: ModuleNotFoundError")
    assert torpor("ls", "-q").stdout == f"{name}\n"


def test_only_the_command_that_runs_is_imported() -> None:
    code = (
        "import sys; from torpor._cli import app; app(['whoami'], standalone_mode=False);"
        "print([name for name in ('torpor_api', 'prompt_toolkit', 'rich.table') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("a = 3", True),
        ("await f()", True),
        ("f(\n    1)", True),
        ("a = 1\nb = 2", True),
        ("%time f()", True),
        ("a = (", False),
        ("x = '''", False),
        ("@decorated", False),
        ("for x in y:", False),
        ("for x in y:\n    f(x)", False),
        ("for x in y:\n    f(x)\n    ", True),
        ("a = 1\nfor x in y:\n    f(x)", False),
        ("!ls", True),
        ("!ls \\", False),
        ("!ls \\\n  -la", True),
        ("files = !ls", True),
        ("if a:\n    !ls", False),
        ("if a:\n    %time f()\n", True),
        ("f?", True),
        ("a.b??", True),
        ("if True: f()", True),
        ("try:\n    f()\nexcept: pass", True),
        ("class A:\n    a = 1\n", True),
        ("'''\n%x", False),
        ("%%bash", False),
        ("%%bash\necho 1", False),
        ("%%bash\necho 1\n", True),
        ("async for x in y:", False),
        ("if True: await f()", True),
        ("x = [await f()\n", False),
        ("1 + \\", False),
        ("1 +* 2", True),
        ("x = '\\d'", True),
        ("if x:\n    y = '\\d'", False),
        ("(" * 5000, True),
        ("\u00e9\u4e2d\U0001f600", True),
        ("\0", True),
    ],
)
def test_enter_runs_what_is_complete(text: str, complete: bool) -> None:
    assert is_complete(text) is complete


def test_a_new_line_is_indented_like_the_last_or_deeper_after_a_colon() -> None:
    assert next_indent("for x in y:") == "    "
    assert next_indent("for x in y:\n    f(x)") == "    "
    assert next_indent("a = (") == ""
    assert next_indent("%%writefile x:") == ""


def test_a_line_that_leaves_its_block_is_followed_by_one_outside() -> None:
    assert next_indent("def f():\n    return 1") == ""
    assert next_indent("for x in y:\n    if x:\n        break") == "    "
    assert next_indent("    returned = 1") == "    "
    assert next_indent("pass") == ""


@given(st.text(st.sampled_from("ab=()[]{}:;!%?\\'\"#\n\t @.\0\u00e9") | st.characters()))
def test_whatever_is_typed_is_a_whole_cell_or_not(text: str) -> None:
    assert is_complete(text) in (True, False)
    assert next_indent(text).strip() == ""
