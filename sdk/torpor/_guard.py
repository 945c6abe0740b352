"""`python -m torpor._guard FOLDER COMMAND...`: runs a command while somebody holds the other end of standard input.

A program that is killed cannot end what it started; this ends with it, however it ends. FOLDER is removed
then; empty: none is.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading

STOP_SECONDS = 180.0
"""Longer than a server takes that saves for a minute. One that is killed leaves sandboxes behind."""


def main() -> int:
    """Run the command; SIGTERM to it at end of file, SIGKILL if it does not end then. Its exit status."""
    folder, *command = sys.argv[1:]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())

    def watch() -> None:
        while os.read(0, 4096):
            pass
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()

    threading.Thread(target=watch, daemon=True).start()
    status = process.wait()
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
