"""Requests and answers about packages."""

from __future__ import annotations

from typing import Annotated

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import AfterValidator, Field

from torpor_api.models import Answer, NoticeAnswer, StrictRequest, TimeoutSeconds, Timings
from torpor_worker.packages.asked import REQUIREMENTS_LIMIT, TEXT_LIMIT


def _requirement(value: str) -> str:
    try:
        requirement = Requirement(value)
    except InvalidRequirement:
        raise ValueError(f"{value!a} names no package") from None
    if requirement.url is not None:
        raise ValueError(f"{value!a} leads to an address: packages come from the server's index alone")
    return str(requirement)


PackageRequirement = Annotated[str, Field(min_length=1, max_length=TEXT_LIMIT), AfterValidator(_requirement)]


class PackagesRequest(StrictRequest):
    """Packages to install."""

    packages: Annotated[list[PackageRequirement], Field(min_length=1, max_length=REQUIREMENTS_LIMIT)] = Field(
        description="As after `pip install`: `name`, `name>=2`, `name[extra]`."
    )
    upgrade: bool | None = Field(default=False, description="Install a newer version though one that does is there.")
    timeout_seconds: TimeoutSeconds | None = Field(
        default=None,
        description="From 1 to the server's maximum, or `longest`, which is that; by default 300, or that.",
    )


class Package(Answer):
    """A version of a package."""

    name: str
    version: str


class PackagesAnswer(Answer):
    """What was installed; nothing of what was there already. `seq` is that of the command that did it."""

    machine: str
    seq: int
    installed: list[Package]
    output: str
    notices: list[NoticeAnswer]
    timings: Timings
