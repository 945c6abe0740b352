"""A client that nobody here wrote: the published ForeverVM SDK, and the tests that come with its source."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.server import ServerProcess

pytestmark = pytest.mark.acceptance

VERSION = "0.1.35"
SHA256 = "b62424b5f97472b7a1b5da6150a423db4b42c10b3f40244ad29d3131051ed908"
TESTS = 8


@pytest.fixture
def published_tests(tmp_path: Path) -> Path:
    """The folder of the SDK's own tests, from its source distribution."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--retries", "10"),
            *("--no-deps", "--no-build-isolation", "--no-binary", ":all:", "--dest", str(tmp_path)),
            f"forevervm-sdk=={VERSION}",
        ],
        check=True,
        timeout=150,
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == SHA256
    subprocess.run(["tar", "--extract", "--file", archive, "--directory", tmp_path], check=True)
    (folder,) = tmp_path.glob("forevervm_sdk-*/tests")
    return folder


@pytest.mark.timeout(600)
def test_the_published_sdk_passes_its_own_tests(server: ServerProcess, published_tests: Path) -> None:
    environment = {**os.environ, "FOREVERVM_API_BASE": server.url, "FOREVERVM_TOKEN": server.api_key}
    # A configuration of its own: the SDK warns, and its tests are not held to our settings.
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(published_tests), "."],
        cwd=published_tests,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{TESTS} passed" in ran.stdout
