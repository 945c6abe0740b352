"""The Python that packages are for: it is another one than the host's."""

from __future__ import annotations

import re
from collections.abc import Iterator

from packaging.tags import Tag, compatible_tags, cpython_tags

from torpor_worker.packages.asked import PackageRefused, Wanted

ARCHITECTURES = frozenset({"x86_64", "aarch64"})
PYTHON = re.compile(r"3\.(\d{1,2})\.\d{1,3}")
OLDEST_LIBC = 5
"""The minor version that `manylinux1` stands for."""
LEGACY = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}


class Target:
    """What a wheel must fit, and what markers are compared with."""

    def __init__(self, wanted: Wanted) -> None:
        """Raises `PackageRefused` for a Python that is none."""
        match = PYTHON.fullmatch(wanted.python)
        if match is None or wanted.architecture not in ARCHITECTURES or not 0 <= wanted.libc[1] < 200:
            raise PackageRefused("The machine's Python is of no known kind.")
        self.python = wanted.python
        self.description = f"Python 3.{match[1]} on Linux, {wanted.architecture}"
        version = (3, int(match[1]))
        platforms = list(_platforms(wanted.architecture, wanted.libc[1]))
        tags = [
            *cpython_tags(version, platforms=platforms),
            *compatible_tags(version, interpreter=f"cp3{match[1]}", platforms=platforms),
        ]
        self._ranks = {tag: rank for rank, tag in enumerate(tags)}
        self.environment = {
            "implementation_name": "cpython",
            "implementation_version": wanted.python,
            "os_name": "posix",
            "platform_machine": wanted.architecture,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": wanted.python,
            "python_version": f"3.{match[1]}",
            "sys_platform": "linux",
        }

    def rank(self, tags: frozenset[Tag]) -> int | None:
        """How well a wheel with these tags fits, less is better; None if it does not."""
        return min((self._ranks[tag] for tag in tags if tag in self._ranks), default=None)


def _platforms(architecture: str, libc_minor: int) -> Iterator[str]:
    for minor in range(libc_minor, OLDEST_LIBC - 1, -1):
        yield f"manylinux_2_{minor}_{architecture}"
        if minor in LEGACY:
            yield f"{LEGACY[minor]}_{architecture}"
    yield f"linux_{architecture}"
