"""Packages are chosen for the machine's Python, checked, bounded, and refused in a sentence that says why."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.package_index import IndexServer

from torpor_worker.packages.asked import PackageRefused, Rules, Wanted, Wheel
from torpor_worker.packages.fetching import Packages
from torpor_worker.packages.index import PackageIndex, make_client
from torpor_worker.packages.resolution import Resolution
from torpor_worker.packages.wheel_cache import WheelCache


@pytest.fixture
def index() -> Iterator[IndexServer]:
    with IndexServer() as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> WheelCache:
    return WheelCache(tmp_path / "packages")


def chosen(
    index: IndexServer, cache: WheelCache, *requirements: str, limit_bytes: int = 1 << 20, **wanted: object
) -> list[str]:
    return [
        f"{wheel.name} {wheel.version}"
        for wheel in wheels(index, cache, *requirements, limit_bytes=limit_bytes, **wanted)
    ]


def wheels(
    index: IndexServer,
    cache: WheelCache,
    *requirements: str,
    limit_bytes: int = 1 << 20,
    allow: tuple[str, ...] = ("*",),
    address: str | None = None,
    **wanted: object,
) -> list[Wheel]:
    rules = Rules(address or index.address, frozenset(allow), limit_bytes)
    asked = Wanted(requirements, **wanted)  # type: ignore[arg-type]  # whatever the test names
    with make_client() as client:
        return Resolution(asked, rules, PackageIndex(rules.index or "", client), cache).wheels()


def refusal(index: IndexServer, cache: WheelCache, *requirements: str, **more: object) -> str:
    with pytest.raises(PackageRefused) as refused:
        wheels(index, cache, *requirements, **more)  # type: ignore[arg-type]  # whatever the test names
    return str(refused.value)


def test_the_newest_version_and_what_it_needs_are_chosen(index: IndexServer, cache: WheelCache) -> None:
    index.add("tidy", "1.0")
    index.add("tidy", "1.2", ("broom>=2",))
    index.add("tidy", "2.0rc1")
    index.add("broom", "1.0")
    index.add("broom", "2.1")
    assert chosen(index, cache, "tidy") == ["broom 2.1", "tidy 1.2"]
    assert chosen(index, cache, "tidy==1.0") == ["tidy 1.0"]
    assert chosen(index, cache, "tidy", prereleases=True) == ["tidy 2.0rc1"]
    assert chosen(index, cache, "tidy", no_dependencies=True) == ["tidy 1.2"]


def test_versions_that_do_not_fit_together_are_passed_by(index: IndexServer, cache: WheelCache) -> None:
    index.add("a", "2", ("shared>=2",))
    index.add("a", "1", ("shared>=1",))
    index.add("b", "1", ("shared<2",))
    index.add("shared", "1.5")
    index.add("shared", "2.5")
    assert chosen(index, cache, "a", "b") == ["a 1", "b 1", "shared 1.5"]
    assert "a 2 needs shared>=2" in refusal(index, cache, "a>=2", "b")


def test_markers_are_those_of_the_machine_and_not_of_the_host(index: IndexServer, cache: WheelCache) -> None:
    old, new = 'old; python_version < "3.13"', 'new; python_version >= "3.13"'
    index.add("a", "1", (old, new, 'win; sys_platform == "win32"', 'more; extra == "plus"'))
    for name in ("old", "new", "win", "more"):
        index.add(name, "1")
    assert chosen(index, cache, "a", python="3.13.2") == ["a 1", "new 1"]
    assert chosen(index, cache, "a", python="3.12.1") == ["a 1", "old 1"]
    assert chosen(index, cache, "a[plus]", python="3.13.2") == ["a 1", "more 1", "new 1"]


def test_wheels_for_other_machines_are_not_chosen(index: IndexServer, cache: WheelCache) -> None:
    index.add("fast", "1", tag="cp313-cp313-manylinux_2_17_x86_64")
    index.add("fast", "1.1", tag="cp313-cp313-manylinux_2_99_x86_64")
    index.add("fast", "1.2", tag="cp312-cp312-manylinux_2_17_x86_64")
    index.add("fast", "1.3", tag="cp313-cp313-win_amd64")
    index.add("fast", "1.4", tag="cp311-abi3-manylinux_2_17_aarch64")
    index.add("fast", "1.5", **{"requires-python": ">=3.14"})
    assert chosen(index, cache, "fast") == ["fast 1"]
    assert chosen(index, cache, "fast", architecture="aarch64") == ["fast 1.4"]


def test_the_wheel_that_fits_best_is_chosen(index: IndexServer, cache: WheelCache) -> None:
    index.add("fast", "1")
    index.add("fast", "1", tag="cp313-cp313-manylinux_2_17_x86_64")
    [wheel] = wheels(index, cache, "fast")
    assert "cp313" in wheel.filename


def test_what_is_installed_is_kept_if_it_does(index: IndexServer, cache: WheelCache) -> None:
    index.add("tool", "1", ("numbers>=2",))
    index.add("numbers", "2.0")
    index.add("numbers", "3.0")
    installed = {"Numbers": "2.0"}
    assert chosen(index, cache, "tool", installed=installed) == ["tool 1"]
    assert chosen(index, cache, "tool", "numbers>=3", installed=installed) == ["numbers 3.0", "tool 1"]
    assert chosen(index, cache, "numbers", installed=installed) == []
    assert chosen(index, cache, "numbers", installed=installed, upgrade=True) == ["numbers 3.0"]
    assert chosen(index, cache, "numbers", installed={"numbers": "3.0"}, upgrade=True) == []
    assert chosen(index, cache, "numbers", installed=installed, fresh=True) == ["numbers 3.0"]
    assert chosen(index, cache, "tool", installed=installed, constraints=("numbers>2",)) == ["numbers 3.0", "tool 1"]


def test_what_was_withdrawn_is_chosen_only_by_its_version(index: IndexServer, cache: WheelCache) -> None:
    index.add("bad", "1.0")
    index.add("bad", "1.1", yanked="broken")
    assert chosen(index, cache, "bad") == ["bad 1.0"]
    assert chosen(index, cache, "bad==1.1") == ["bad 1.1"]


def test_metadata_is_read_from_the_wheel_where_the_index_has_it_nowhere_else(
    index: IndexServer, cache: WheelCache
) -> None:
    index.add("a", "1", ("b",), metadata=False)
    index.add("b", "1", metadata=False)
    assert chosen(index, cache, "a") == ["a 1", "b 1"]


def test_each_refusal_says_why(index: IndexServer, cache: WheelCache) -> None:
    index.add_source("sourceonly", "1.0")
    index.add("windows", "1.0", tag="cp313-cp313-win_amd64")
    index.add("here", "1.0", ("nowhere",))
    index.add("old", "1.0")
    assert refusal(index, cache, "nothing") == "The server's package index has no package nothing."
    assert "only source code, which is not built here" in refusal(index, cache, "sourceonly")
    assert "wheel for Python 3.13 on Linux, x86_64" in refusal(index, cache, "windows")
    assert refusal(index, cache, "here") == "The server's package index has no package nowhere, which here needs."
    assert "no version >=2 of old" in refusal(index, cache, "old>=2")
    assert "names no package" in refusal(index, cache, "; rm -rf /")
    assert "names no package" in refusal(index, cache, "../../etc/passwd")
    assert "index alone" in refusal(index, cache, "x @ https://example.com/x.whl")
    assert "TORPOR_PACKAGE_ALLOW" in refusal(index, cache, "old", allow=("here",))
    assert not any("etc" in path or ".." in path for path in index.asked)


def test_what_an_allowed_package_needs_comes_with_it(index: IndexServer, cache: WheelCache) -> None:
    index.add("a", "1", ("b",))
    index.add("b", "1")
    assert [wheel.name for wheel in wheels(index, cache, "A", allow=("a",))] == ["a", "b"]
    assert "does not allow the package b" in refusal(index, cache, "a", "b", allow=("a",))


def test_a_wheel_that_is_another_than_the_index_says_is_refused(index: IndexServer, cache: WheelCache) -> None:
    content = index.add("a", "1", body=b"something else")
    assert "digest differs" in refusal(index, cache, "a")
    assert not list(cache.path("").parent.iterdir())
    index.bodies["/files/a-1-py3-none-any.whl"] = content
    assert chosen(index, cache, "a") == ["a 1"]


def test_metadata_that_is_other_than_the_index_says_is_refused(index: IndexServer, cache: WheelCache) -> None:
    index.add("a", "1")
    index.bodies["/files/a-1-py3-none-any.whl.metadata"] = b"Requires-Dist: evil\n"
    assert "not what the package index says" in refusal(index, cache, "a")


def test_a_wheel_without_a_digest_does_not_count(index: IndexServer, cache: WheelCache) -> None:
    index.add("a", "1", hashes={"md5": "0" * 32})
    assert "no package a" in refusal(index, cache, "a")


def test_more_than_may_be_is_refused_before_and_while_it_comes(index: IndexServer, cache: WheelCache) -> None:
    size = len(index.add("a", "1"))
    assert "TORPOR_PACKAGE_BYTES" in refusal(index, cache, "a", limit_bytes=size - 1)
    assert not any(path.endswith(".whl") for path in index.asked)
    index.files["a"][0]["size"] = 1
    assert "bytes that there may be" in refusal(index, cache, "a", limit_bytes=size - 1)
    assert chosen(index, cache, "a", limit_bytes=size) == ["a 1"]
    assert "TORPOR_PACKAGE_BYTES" in refusal(index, cache, "a", limit_bytes=size - 1)


def test_what_was_fetched_once_is_not_fetched_again(index: IndexServer, cache: WheelCache) -> None:
    index.add("a", "1")
    [wheel] = wheels(index, cache, "a")
    assert chosen(index, cache, "a") == ["a 1"]
    assert sum(path.endswith(".whl") for path in index.asked) == 1
    cache.path(wheel.sha256).write_bytes(b"damaged")
    assert chosen(index, cache, "a") == ["a 1"]
    assert sum(path.endswith(".whl") for path in index.asked) == 2


def test_an_index_that_is_away_or_speaks_otherwise_is_named(index: IndexServer, cache: WheelCache) -> None:
    index.files["a"] = [{"name": "nonsense"}]
    assert "PEP 691" in refusal(index, cache, "a")
    index.broken = True
    assert "status 503" in refusal(index, cache, "b")
    assert "cannot be reached" in refusal(index, cache, "b", address="http://127.0.0.1:9/simple/")


def test_the_password_of_an_index_is_shown_to_it_alone(index: IndexServer, cache: WheelCache) -> None:
    with IndexServer() as other:
        content = other.add("a", "1")
        index.add("a", "1", url=f"{other.address}../files/a-1-py3-none-any.whl")
        with_password = index.address.replace("//", "//me:secret@")
        assert [wheel.size_bytes for wheel in wheels(index, cache, "a", address=with_password)] == [len(content)]
        assert all(index.authorizations)
        assert other.asked
        assert not any(other.authorizations)


def test_old_wheels_go_when_there_are_too_many(index: IndexServer, cache: WheelCache) -> None:
    index.add("a", "1")
    index.add("b", "1")
    [first], [second] = wheels(index, cache, "a"), wheels(index, cache, "b")
    cache.prune(second.size_bytes)
    assert not cache.path(first.sha256).exists()
    assert cache.path(second.sha256).exists()


def test_wheels_that_go_while_the_old_ones_are_looked_for_are_no_failure(cache: WheelCache, tmp_path: Path) -> None:
    (tmp_path / "packages" / "a.1.part").symlink_to("renamed")  # listed, and not there any more
    cache.prune()


def test_a_version_without_end_is_passed_by(index: IndexServer, cache: WheelCache) -> None:
    index.add("a", "1")
    wanted = Wanted.of_fields(
        {
            "requirements": ["a"],
            "installed": {"b": "1" * 5000},
            "python": "3.13.1",
            "libc": [2, 41],
            "architecture": "x86_64",
        }
    )
    rules = Rules(index.address, frozenset("*"))
    with make_client() as client:
        [wheel] = Resolution(wanted, rules, PackageIndex(index.address, client), cache).wheels()
    assert wheel.name == "a"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"requirements": "abc"},
        {"requirements": ["x"] * 1000},
        {"requirements": ["x" * 1000]},
        {"requirements": []},
        {"requirements": ["x"], "installed": {str(n): "1" for n in range(5000)}},
        {"requirements": ["x"], "libc": None},
        {"requirements": ["x"], "libc": [2, float("inf")]},
    ],
)
def test_a_request_that_is_none_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(PackageRefused):
        Wanted.of_fields({"installed": {}, "python": "3.13.1", "libc": [2, 41], "architecture": "x86_64", **fields})


def test_a_strange_python_is_refused(index: IndexServer, cache: WheelCache) -> None:
    assert "no known kind" in refusal(index, cache, "a", python="3.13.1; import os")
    assert "no known kind" in refusal(index, cache, "a", architecture="../x")


async def test_a_request_is_worked_on_in_a_process_of_its_own(index: IndexServer, tmp_path: Path) -> None:
    content = {name: index.add(name, "1", needs) for name, needs in (("a", ("b",)), ("b", ()))}
    packages = Packages(Rules(index.address, frozenset("*")), tmp_path / "packages")
    found = await packages.fetch("me", Wanted(("a",)))
    packed = b"".join([piece async for piece in packages.archive(found)])
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = {info.name: archive.extractfile(info) for info in archive}
        assert {name: file.read() for name, file in members.items() if file is not None} == {
            f"{name}-1-py3-none-any.whl": each for name, each in content.items()
        }
    with pytest.raises(PackageRefused, match="no package c"):
        await packages.fetch("me", Wanted(("c",)))


def test_a_request_ends_in_time_though_whoever_has_asked_is_gone(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        request = {
            "rules": {"index": f"http://127.0.0.1:{silent.getsockname()[1]}/", "allow": ["*"], "limit_bytes": 1},
            "cache": str(tmp_path),
            "wanted": Wanted(("a",)).fields(),
            "seconds": 0,
        }
        asking = subprocess.run(
            [sys.executable, "-P", "-m", "torpor_worker.packages"],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=25,  # less than one connection may take to answer
            check=False,
        )
    assert asking.returncode == -signal.SIGALRM


async def test_without_an_index_the_refusal_says_what_its_operator_sets(tmp_path: Path) -> None:
    with pytest.raises(PackageRefused, match="TORPOR_PACKAGE_INDEX"):
        await Packages(Rules(), tmp_path).fetch("me", Wanted(("a",)))
