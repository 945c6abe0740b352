# The fixed command of every sandbox: reads the guest's code from standard input (a frame of type 1 after a marker whose
# body is {"main": module, "modules": {name: source}}) and runs it. It must never change: snapshots depend on it.
import builtins
import importlib.machinery
import importlib.util
import json
import os
import struct
import sys
import time
import zlib


def read(size):
    data = b""
    while len(data) < size:
        try:
            piece = os.read(0, size - len(data))
        except BlockingIOError:
            piece = b""
        if not piece:  # nobody is there yet
            time.sleep(0.01)
        data += piece
    return data


class Loader:
    def find_spec(self, name, path=None, target=None):
        if name not in modules:
            return None
        return importlib.machinery.ModuleSpec(name, self, origin="<torpor>", is_package=name == "torpor_guest")

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        filename = "<" + module.__name__ + ">"
        module.__dict__["__builtins__"] = dict(builtins.__dict__)  # user code may replace them
        exec(compile(modules[module.__name__], filename, "exec"), module.__dict__)


window = read(16)
while window != bytes.fromhex("f7d1a9e3b8c6fa95e2d0bd8fc9ffa1ee"):
    window = window[1:] + read(1)
header = read(20)
magic, version, kind, length, number, checksum = struct.unpack(">2sBBIqI", header)
body = read(length)
if kind != 1 or zlib.crc32(body, zlib.crc32(header[:16])) != checksum:
    sys.exit("the guest's code arrived damaged")
payload = json.loads(body)
modules = {"torpor_guest." + name: source for name, source in payload["modules"].items()}
modules["torpor_guest"] = ""
sys.meta_path.insert(0, Loader())
importlib.import_module("torpor_guest." + payload["main"]).main(body)
