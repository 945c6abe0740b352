"""What is asked for: requirements, by a machine of a certain kind, of an index under the operator's rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

REQUIREMENTS_LIMIT = 256
INSTALLED_LIMIT = 4096
TEXT_LIMIT = 400
"""Characters of one requirement."""


class PackageRefused(Exception):
    """What was asked for is not handed in; the message is a sentence that says why."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator allows."""

    index: str | None = None
    """The address of a simple index that answers in JSON (PEP 691); None: there are no packages."""
    allow: frozenset[str] = frozenset()
    """Normalized names that may be asked for, or `*` for every name. What they need comes with them."""
    limit_bytes: int = 128 << 20
    """What the wheels of one request may take together."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One request. It comes from user code, so nothing in it is believed."""

    requirements: tuple[str, ...]
    """As after `pip install`: names with extras, versions and markers, no addresses."""
    constraints: tuple[str, ...] = ()
    installed: Mapping[str, str] = field(default_factory=dict)
    """Versions of what is there already, by name."""
    upgrade: bool = False
    """Newer versions of what is asked for are wanted, though what is there would do."""
    prereleases: bool = False
    no_dependencies: bool = False
    fresh: bool = False
    """What is there already does not count, as it is to be installed anew, or elsewhere."""
    python: str = "3.13.0"
    libc: tuple[int, int] = (2, 36)
    """Of the GNU libc."""
    architecture: str = "x86_64"

    def fields(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> Wanted:
        """From JSON that anybody may have written. Raises `PackageRefused`."""
        try:
            libc = [int(part) for part in fields["libc"]]
            wanted = cls(
                requirements=_texts(fields["requirements"]),
                constraints=_texts(fields.get("constraints", ())),
                installed={
                    str(name)[:TEXT_LIMIT]: str(version)[:TEXT_LIMIT]
                    for name, version in dict(fields["installed"]).items()
                },
                upgrade=bool(fields.get("upgrade")),
                prereleases=bool(fields.get("prereleases")),
                no_dependencies=bool(fields.get("no_dependencies")),
                fresh=bool(fields.get("fresh")),
                python=str(fields["python"])[:20],
                libc=(libc[0], libc[1]),
                architecture=str(fields["architecture"])[:20],
            )
        except (KeyError, TypeError, ValueError, IndexError, OverflowError):
            raise PackageRefused("The request for packages was not understood.") from None
        if not wanted.requirements:
            raise PackageRefused("No package was named.")
        if len(wanted.installed) > INSTALLED_LIMIT:
            raise PackageRefused(f"More than {INSTALLED_LIMIT} packages are installed already.")
        return wanted


@dataclass(frozen=True, slots=True)
class Wheel:
    """One that was fetched and checked; it lies in the cache under its digest."""

    name: str
    version: str
    filename: str
    sha256: str
    size_bytes: int


def _texts(values: Any) -> tuple[str, ...]:
    texts = tuple(str(value) for value in values)
    if isinstance(values, str) or len(texts) > REQUIREMENTS_LIMIT or any(len(text) > TEXT_LIMIT for text in texts):
        raise ValueError
    return texts
