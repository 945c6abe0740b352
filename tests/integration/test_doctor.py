"""`torpor doctor` on this host, which can do the main job, and where there is no runtime."""

import json
from unittest.mock import ANY

import pytest
from typer.testing import CliRunner

from torpor_api.commands.doctor import app
from torpor_api.data_dir import default_data_dir

pytestmark = pytest.mark.integration


def test_a_host_that_runs_saves_and_wakes_a_tiny_machine_passes(runtime):
    answer = CliRunner().invoke(app, ["--data-dir", str(default_data_dir())])
    assert answer.exit_code == 0, answer.output
    assert "ran, slept and woke" in answer.output
    assert not list(default_data_dir().glob("doctor-*"))


def test_a_host_without_a_runtime_is_told_the_command_that_makes_one(tmp_path):
    answer = CliRunner().invoke(app, ["--data-dir", str(tmp_path)])
    assert answer.exit_code == 1
    assert "torpor runtime build" in answer.output


def test_for_a_program_the_findings_are_a_list(tmp_path):
    answer = CliRunner().invoke(app, ["--data-dir", str(tmp_path), "--json"])
    assert answer.exit_code == 1
    findings = {finding["subject"]: finding for finding in json.loads(answer.stdout)}
    assert findings["kernel"] == {"subject": "kernel", "verdict": "good", "found": ANY, "cure": None}
    assert findings["runtime"]["verdict"] == "lacking"
    assert "torpor runtime build" in findings["runtime"]["cure"]
