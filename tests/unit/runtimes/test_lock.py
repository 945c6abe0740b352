from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from torpor_snapshotter.runtimes.lock import LOCK_FILE, format_lock, load_lock, parse_lock

SHA256 = re.compile(r"[0-9a-f]{64}")


def test_the_checked_in_lock_pins_every_file_by_digest():
    lock = load_lock()

    digests = [lock.go_wheel_sha256, lock.runsc_sha256, lock.rootfs_sha256]
    digests += [entry.sha256 for entry in (*lock.packages, *lock.tools, *lock.wheels)]
    assert all(SHA256.fullmatch(digest) for digest in digests)
    assert all(package.path.endswith(".deb") for package in (*lock.packages, *lock.tools))


def test_the_checked_in_lock_holds_what_users_are_promised():
    lock = load_lock()

    promised = {
        "ipython",
        "numpy",
        "scipy",
        "pandas",
        "matplotlib",
        "scikit-learn",
        "sympy",
        "pillow",
        "requests",
        "pip",
    }
    assert promised <= {wheel.name for wheel in lock.wheels}
    assert set(lock.wanted_packages) <= {package.name for package in lock.packages}


def test_writing_the_lock_again_changes_nothing():
    assert format_lock(load_lock()) == LOCK_FILE.read_text()


def test_a_lock_without_a_field_or_with_an_unknown_one_is_refused():
    facts = json.loads(LOCK_FILE.read_text())

    with pytest.raises(ValueError, match="malformed"):
        parse_lock(json.dumps({name: value for name, value in facts.items() if name != "wheels"}))
    with pytest.raises(ValueError, match="malformed"):
        parse_lock(json.dumps({**facts, "surprise": 1}))


def test_every_dependency_of_the_project_is_pinned_for_set_up():
    root = Path(__file__).parents[3]
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (root / "constraints.txt").read_text().split()}
    text = (root / "pyproject.toml").read_text() + (root / "sdk/pyproject.toml").read_text()

    named = {name.lower() for name in re.findall(r'^  "([\w-]+)(?:\[[\w,]+\])?[>=~]=[^"]*",', text, re.MULTILINE)}

    assert named - pinned - {"torpor", "tomli"} == set()
