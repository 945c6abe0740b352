"""The documents are enough to read a snapshot: a reader that shares no code with ours finds the same bytes."""

from __future__ import annotations

import ast
import asyncio
import os
from pathlib import Path

from tests.support import stranger

from torpor_snapshotter.archive import Archive, ParentKey
from torpor_snapshotter.folder_store import FolderStore
from torpor_snapshotter.keys import FolderKeyStore


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


async def test_a_stranger_reads_a_template_and_what_builds_on_it(tmp_path: Path) -> None:
    keys = FolderKeyStore(tmp_path / "keys")
    archive = Archive(FolderStore(tmp_path / "store"), keys)
    pages = os.urandom(300 * 4096)
    state = os.urandom(20_000)
    first = {"pages.img": pages + bytes(40 * 4096) + b"tail", "checkpoint.img": state, "pages_meta.img": b""}
    name = "template-python-0a"
    key = f"templates/{name}/image"
    said = {"machine": name, "generation": 0, "template": "python", "version": "1"}
    template = await archive.store(write(tmp_path / "0", first), key, said)
    counted = bytearray(pages)
    for page in range(0, 300, 2):
        counted[page * 4096 + 8] ^= 1
    second = {"pages.img": os.urandom(4096) + bytes(counted), "checkpoint.img": state[:9000] + b"new" + state[9000:]}
    parent = ParentKey(template.key, template.sha256, tmp_path / "0")
    fields = {"machine": "m", "generation": 7, "tags": {"a": "b"}}
    saved = await archive.store(write(tmp_path / "1", second), "machines/m/00000007-0a", fields, parent)
    await archive.close()
    await asyncio.to_thread(keys.rotate)

    read = stranger.Snapshot(tmp_path / "store", tmp_path / "keys", key)
    assert (read.json["fields"], read.files()) == (said, first)
    read = stranger.Snapshot(tmp_path / "store", tmp_path / "keys", saved.key)
    assert (read.machine, read.generation, read.json["fields"]) == ("m", 7, fields)
    assert [pack["differences"] > 0 for pack in read.json["packs"]] == [False, True]
    assert any(file.get("whole", {}).get("dictionary") for file in read.json["files"])
    assert read.files() == second


def test_the_stranger_knows_nothing_of_ours() -> None:
    tree = ast.parse(Path(stranger.__file__).read_text())
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    imported += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in imported if name.startswith(("torpor", "tests"))]
