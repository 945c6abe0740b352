"""Run by the sandbox's own Python: compiles one share of a tree's modules.

Arguments: the tree, the number of shares, which share (from 0), the folders of modules in the tree. The caches are
never checked against their sources (PEP 552), so times do not matter. Constants are marked by reference counts, hence
a fixed number of shares, each compiled in its order by a process of its own: the bytes are then the same everywhere.
"""

from __future__ import annotations

import importlib.util
import py_compile
import sys
from pathlib import Path


def main(tree: str, shares: str, share: str, *folders: str) -> None:
    """Compile every `shares`-th module, beginning with number `share`. A module that is not valid Python is left."""
    root = Path(tree)
    found = [path for folder in folders for path in (root / folder).rglob("*.py") if not path.is_symlink()]
    modules = sorted(str(path.relative_to(root)) for path in found)
    for name in modules[int(share) :: int(shares)]:
        source = root / name
        cache = Path(importlib.util.cache_from_source(str(source)))
        try:
            py_compile.compile(
                str(source),
                cfile=str(cache),
                dfile=f"/{name}",
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
        except py_compile.PyCompileError:
            continue
        cache.chmod(0o644)
        cache.parent.chmod(0o755)


main(*sys.argv[1:])
