"""Which versions together are what was asked for: the index's wheels as `resolvelib` wants to see them.

Nothing of a package is executed. What a wheel needs is in its metadata, for the machine's Python, not the host's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.metadata import parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import InvalidVersion, Version
from resolvelib import AbstractProvider, BaseReporter, ResolutionImpossible, ResolutionTooDeep, Resolver
from resolvelib.structs import RequirementInformation

from torpor_worker.packages.asked import PackageRefused, Rules, Wanted, Wheel
from torpor_worker.packages.index import IndexFile, PackageIndex, Project
from torpor_worker.packages.target import Target
from torpor_worker.packages.wheel_cache import WheelCache, too_large

ROUNDS = 5000
PROJECTS_LIMIT = 400
"""How many names may be looked up for one request."""
NAMED = 5
"""How many things a sentence names."""


class Key(NamedTuple):
    """What one version is chosen of. A name with extras is chosen for itself, and needs the same version without."""

    name: NormalizedName
    extras: frozenset[str]


class Need(NamedTuple):
    """That something is needed, in some versions."""

    key: Key
    specifier: SpecifierSet


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version that there is: of the index, or installed already."""

    key: Key
    version: Version
    file: IndexFile | None
    """None: it is installed already."""


Causes = Sequence[RequirementInformation[Need, Candidate]]


class Resolution(AbstractProvider[Need, Candidate, Key]):
    """One request's. Methods raise `PackageRefused`."""

    def __init__(self, wanted: Wanted, rules: Rules, index: PackageIndex, cache: WheelCache) -> None:
        self._wanted = wanted
        self._rules = rules
        self._index = index
        self._cache = cache
        self._target = Target(wanted)
        self._projects: dict[str, Project | None] = {}
        self._needs: dict[str, list[Requirement]] = {}
        """By digest of a wheel."""
        self._installed = {} if wanted.fresh else _installed(wanted.installed)
        self._roots = [need for text in wanted.requirements for need in self._root(text)]
        self._constraints = [need for text in wanted.constraints for need in self._parsed(text)]
        self._fetched_bytes = 0

    def wheels(self) -> list[Wheel]:
        """Those to hand in, fetched and checked."""
        for need in self._roots:
            self._check_allowed(need.key.name)
        resolver: Resolver[Need, Candidate, Key] = Resolver(self, BaseReporter())
        try:
            result = resolver.resolve(self._roots, max_rounds=ROUNDS)
        except ResolutionImpossible as impossible:
            raise PackageRefused(self._why(list(impossible.causes))) from None
        except ResolutionTooDeep:
            raise PackageRefused("No versions that fit together were found in time; name some versions.") from None
        chosen = {candidate.key.name: candidate for candidate in result.mapping.values() if not candidate.key.extras}
        wheels = []
        left = self._rules.limit_bytes
        for name, candidate in sorted(chosen.items()):
            file = candidate.file
            if file is None:
                continue
            if file.size_bytes is not None and file.size_bytes > left:
                raise too_large(file.filename)
            size = self._fetch(file, left)
            left -= size
            wheels.append(Wheel(name, str(candidate.version), file.filename, file.sha256, size))
        return wheels

    # What is asked.

    def _root(self, text: str) -> Iterator[Need]:
        for need in self._parsed(text):
            yield need
            if need.key.extras:
                yield Need(Key(need.key.name, frozenset()), need.specifier)

    def _parsed(self, text: str) -> Iterator[Need]:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            raise PackageRefused(f"{text!a} names no package.") from None
        if requirement.url is not None:
            raise PackageRefused(f"{text!a} leads to an address: packages come from the server's index alone.")
        if self._applies(requirement, ""):
            yield _need(requirement)

    def _check_allowed(self, name: str) -> None:
        if "*" not in self._rules.allow and name not in self._rules.allow:
            raise PackageRefused(
                f"The server does not allow the package {name}: its operator names those that it allows in"
                " TORPOR_PACKAGE_ALLOW."
            )

    def _applies(self, requirement: Requirement, extra: str) -> bool:
        marker = requirement.marker
        try:
            return marker is None or marker.evaluate({**self._target.environment, "extra": extra})
        except (UndefinedComparison, UndefinedEnvironmentName, InvalidVersion):
            return False

    # What resolvelib asks.

    def identify(self, requirement_or_candidate: Need | Candidate) -> Key:
        """What it is about."""
        return requirement_or_candidate.key

    def get_preference(
        self,
        identifier: Key,
        resolutions: Mapping[Key, Candidate],
        candidates: Mapping[Key, Iterator[Candidate]],
        information: Mapping[Key, Iterator[RequirementInformation[Need, Candidate]]],
        backtrack_causes: Causes,
    ) -> tuple[bool, bool, bool, str]:
        """What was in the way before comes first, then what is pinned, then what was asked for itself."""
        causes = {cause.requirement.key for cause in backtrack_causes}
        causes |= {cause.parent.key for cause in backtrack_causes if cause.parent is not None}
        known = list(information[identifier])
        pinned = any(
            each.operator in ("==", "===") and "*" not in each.version
            for one in known
            for each in one.requirement.specifier
        )
        asked = any(one.parent is None for one in known)
        return identifier not in causes, not pinned, not asked, f"{identifier.name}{sorted(identifier.extras)}"

    def find_matches(
        self,
        identifier: Key,
        requirements: Mapping[Key, Iterator[Need]],
        incompatibilities: Mapping[Key, Iterator[Candidate]],
    ) -> list[Candidate]:
        """What would do, the best first."""
        specifiers = [need.specifier for need in requirements[identifier]]
        excluded = {candidate.version for candidate in incompatibilities[identifier]}
        asked_for_itself = any(need.key.name == identifier.name for need in self._roots)
        # What is there is kept if it does, unless newer is wished for.
        there = self._installed.get(identifier.name)
        prefer = None if there is None or (self._wanted.upgrade and asked_for_itself) else there
        if there is not None and not identifier.extras and there not in excluded and prefer is not None:
            kept = Candidate(identifier, there, None)
            if self._fits(identifier.name, there, specifiers, prereleases=True):
                return [kept, *self._listed(identifier, specifiers, excluded | {there}, None)]
        found = self._listed(identifier, specifiers, excluded, prefer)
        if there is None or identifier.extras:
            return found
        # Of the version that is there already nothing is fetched.
        return [Candidate(identifier, there, None) if each.version == there else each for each in found]

    def is_satisfied_by(self, requirement: Need, candidate: Candidate) -> bool:
        """Whether it would do."""
        return requirement.specifier.contains(candidate.version, prereleases=True)

    def get_dependencies(self, candidate: Candidate) -> Iterable[Need]:
        """What it needs itself. What is installed has what it needs."""
        if candidate.file is None or self._wanted.no_dependencies:
            return []
        needs = []
        if candidate.key.extras:
            same = Key(candidate.key.name, frozenset())
            needs.append(Need(same, SpecifierSet(f"=={candidate.version}")))
        for requirement in self._needs_of(candidate.file):
            extras = candidate.key.extras or {""}
            with_extra = any(self._applies(requirement, extra) for extra in extras)
            if not with_extra or (candidate.key.extras and self._applies(requirement, "")):
                continue  # the latter comes with the name without extras
            if requirement.url is not None:
                raise PackageRefused(f"{candidate.file.filename} needs something from an address beside the index.")
            need = _need(requirement)
            needs.append(need)
            if need.key.extras:
                needs.append(Need(Key(need.key.name, frozenset()), need.specifier))
        return needs

    # What there is.

    def _listed(
        self, key: Key, specifiers: list[SpecifierSet], excluded: set[Version], prefer: Version | None
    ) -> list[Candidate]:
        best: dict[Version, tuple[int, IndexFile]] = {}
        for file in self._usable(key.name):
            rank = self._target.rank(file.tags)
            if rank is not None and (file.version not in best or rank < best[file.version][0]):
                best[file.version] = rank, file
        pinned = any(each.operator in ("==", "===") for specifier in specifiers for each in specifier)
        versions = [
            version
            for version, (_, file) in best.items()
            if version not in excluded
            and (pinned or not file.yanked)
            and self._fits(key.name, version, specifiers, prereleases=True)
        ]
        stable = [version for version in versions if self._may_choose(version, specifiers)]
        versions = sorted(stable or versions, reverse=True)
        if prefer in versions:
            versions.remove(prefer)
            versions.insert(0, prefer)
        return [Candidate(key, version, best[version][1]) for version in versions]

    def _may_choose(self, version: Version, specifiers: list[SpecifierSet]) -> bool:
        wished = self._wanted.prereleases or any(specifier.prereleases for specifier in specifiers)
        return wished or not version.is_prerelease

    def _fits(self, name: str, version: Version, specifiers: list[SpecifierSet], *, prereleases: bool) -> bool:
        constraints = [each.specifier for each in self._constraints if each.key.name == name]
        return all(each.contains(version, prereleases=prereleases) for each in [*specifiers, *constraints])

    def _usable(self, name: str) -> list[IndexFile]:
        project = self._project(name)
        if project is None:
            return []
        return [
            file
            for file in project.wheels
            if self._target.rank(file.tags) is not None
            and (file.requires_python is None or file.requires_python.contains(self._target.python, prereleases=True))
        ]

    def _project(self, name: str) -> Project | None:
        if name not in self._projects:
            if len(self._projects) >= PROJECTS_LIMIT:
                raise PackageRefused(f"It needs more than {PROJECTS_LIMIT} packages.")
            self._projects[name] = self._index.project(name)
        return self._projects[name]

    def _needs_of(self, file: IndexFile) -> list[Requirement]:
        if file.sha256 not in self._needs:
            metadata = self._index.metadata(file)
            if metadata is None:
                self._fetch(file, self._rules.limit_bytes)
                metadata = self._cache.metadata(file)
            raw, _ = parse_email(metadata)
            try:
                self._needs[file.sha256] = [Requirement(text) for text in raw.get("requires_dist", [])]
            except InvalidRequirement:
                raise PackageRefused(f"The metadata of {file.filename} cannot be understood.") from None
        return self._needs[file.sha256]

    def _fetch(self, file: IndexFile, limit_bytes: int) -> int:
        """Fetched for its metadata or to be handed in, each wheel counts; backtracking must not empty the index."""
        if self._cache.path(file.sha256).exists():
            return self._cache.fetch(self._index, file, limit_bytes)
        left = 4 * self._rules.limit_bytes - self._fetched_bytes
        size = self._cache.fetch(self._index, file, min(limit_bytes, left))
        self._fetched_bytes += size
        return size

    # Why not.

    def _why(self, causes: Causes) -> str:
        for name in dict.fromkeys(cause.requirement.key.name for cause in causes):
            if name in self._installed and self._projects.get(name) is None:
                continue
            if (reason := self._why_nothing(name, causes)) is not None:
                return reason
        some = []
        for cause in causes:
            needed = f"{_text(cause.requirement)} is asked for"
            if cause.parent is not None:
                needed = f"{cause.parent.key.name} {cause.parent.version} needs {_text(cause.requirement)}"
            if needed not in some:
                some.append(needed)
        return f"No versions fit together: {', '.join(some[:NAMED])}."

    def _why_nothing(self, name: NormalizedName, causes: Causes) -> str | None:
        """What is wrong with one name alone."""
        project = self._project(name)
        needed_by = next((each.parent for each in causes if each.requirement.key.name == name and each.parent), None)
        what = name if needed_by is None else f"{name}, which {needed_by.key.name} needs,"
        if project is None or not (project.wheels or project.has_sources):
            return f"The server's package index has no package {what.rstrip(',')}."
        usable = self._usable(name)
        if not usable:
            sources = "; there is only source code, which is not built here" if project.has_sources else ""
            if any(self._target.rank(file.tags) is not None for file in project.wheels):
                return f"No version of {what} is for {self._target.description}."
            return f"No version of {what} has a wheel for {self._target.description}{sources}."
        specifiers = [each.requirement.specifier for each in causes if each.requirement.key.name == name]
        if any(self._fits(name, file.version, specifiers, prereleases=True) for file in usable):
            return None
        alone = [each for each in specifiers if not any(each.contains(f.version, prereleases=True) for f in usable)]
        if not alone:
            return None
        newest = max(file.version for file in usable)
        there = f"with a wheel for {self._target.description}; the newest is {newest}"
        return f"There is no version {alone[0]} of {what.rstrip(',')} {there}."


def _need(requirement: Requirement) -> Need:
    extras = frozenset(canonicalize_name(extra) for extra in requirement.extras)
    return Need(Key(canonicalize_name(requirement.name), extras), requirement.specifier)


def _text(need: Need) -> str:
    extras = f"[{','.join(sorted(need.key.extras))}]" if need.key.extras else ""
    return f"{need.key.name}{extras}{need.specifier}"


def _installed(versions: Mapping[str, str]) -> dict[str, Version]:
    installed = {}
    for name, version in versions.items():
        try:
            installed[str(canonicalize_name(name))] = Version(version)
        except InvalidVersion:
            continue
    return installed
