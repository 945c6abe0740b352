"""The CPU features that sandboxes see: one baseline, so that an image restores on every host that has it."""

from __future__ import annotations

_EVERY_64_BIT_PROCESSOR = (
    "apic clflush cmov cx8 de fpu fxsr ht lm mca mce mmx msr mtrr nx pae pat pge pse pse36 sep sse sse2 syscall tsc vme"
)
_LEVEL_2 = "cx16 lahf_lm pni popcnt sse4_1 sse4_2 ssse3"
_LEVEL_3 = "abm avx avx2 bmi1 bmi2 f16c fma movbe osxsave xsave"
"""`abm` is LZCNT."""

BASELINE = frozenset(f"{_EVERY_64_BIT_PROCESSOR} {_LEVEL_2} {_LEVEL_3}".split())
"""The x86-64-v3 level of the psABI, by the names of `runsc cpu-features`."""


def missing_features(host_features: str) -> list[str]:
    """What of x86-64-v3 a host lacks, given the output of `runsc cpu-features` (names joined by commas)."""
    return sorted(set(f"{_LEVEL_2} {_LEVEL_3}".split()) - set(host_features.strip().split(",")))


def visible_features(host_features: str) -> list[str]:
    """What sandboxes on this host see: the part of the baseline that the host has. A restore needs all of it."""
    return sorted(BASELINE & set(host_features.strip().split(",")))
