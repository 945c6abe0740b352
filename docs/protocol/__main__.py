"""Check the protocol, and show what breaks without each condition."""

from __future__ import annotations

import argparse
import sys

from docs.protocol.checker import check
from docs.protocol.sizes import CONDITIONS, LARGE_MODELS, MODELS, check_without


def main() -> None:
    """Print what was found; exits with 1 if the protocol breaks a promise, or lacks nothing without a condition."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="larger models too, which takes minutes")
    large = parser.parse_args().large
    failed = False
    for size, model in (*MODELS, *(LARGE_MODELS if large else ())):
        report = check(model)
        failed = failed or report.problem is not None
        say(f"{size}: {report.states} states, {report.steps} steps: {report.problem or 'every promise is kept'}")
        say(*report.trace, indent="    ")
    for condition in CONDITIONS:
        report = check_without(condition)
        failed = failed or report.problem is None
        say("", f"Unless {condition.value}:", f"    {report.problem or 'nothing breaks'}, after")
        say(*report.trace, indent="        ")
    sys.exit(failed)


def say(*lines: str, indent: str = "") -> None:
    """Print lines."""
    for line in lines:
        sys.stdout.write(f"{indent}{line}\n")


if __name__ == "__main__":
    main()
