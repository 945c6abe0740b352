"""Run as an instruction of a copy of a machine that cannot be recovered: says its files and variables as a tar archive.

It runs where user code does, among whatever that has done to the interpreter, and asks as little of it as it can.
"""

# ruff: noqa: PLC0415  # names of modules would hide variables of the user's that are called the same


def _export_state() -> None:
    import base64
    import io
    import os
    import pickle
    import sys
    import tarfile
    import types

    from IPython.display import display

    class Chunks(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            chunk = bytes(data)  # type: ignore[call-overload]  # any buffer
            bundle = {"application/x-torpor-export": base64.b64encode(chunk).decode()}
            display(bundle, raw=True)  # type: ignore[no-untyped-call]  # IPython's
            return len(chunk)

    def add_bytes(name: str, body: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(body)
        archive.addfile(member, io.BytesIO(body))

    left_out = []
    stream = io.BufferedWriter(Chunks(), 256 * 1024)
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name, value in sorted(vars(sys.modules["__main__"]).items()):
            if name.startswith("_") or isinstance(value, types.ModuleType):
                continue
            try:
                add_bytes(f"variables/{name}.pickle", pickle.dumps(value))
            except Exception as error:
                left_out.append(f"variable {name}: {type(error).__name__}: {error}")
        home = os.path.expanduser("~")
        for folder, folders, names in os.walk(home):
            for name in [*folders, *names]:
                path = os.path.join(folder, name)
                try:
                    archive.add(path, arcname=os.path.join("home", os.path.relpath(path, home)), recursive=False)
                except OSError as error:
                    left_out.append(f"file {path}: {error}")
        add_bytes("LEFT-OUT.txt", "".join(f"{line}\n" for line in left_out).encode("utf-8", "backslashreplace"))
    stream.flush()


_export_state()
