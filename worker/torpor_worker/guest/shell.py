"""IPython's shell, without what hoards (history, output caches) and without what needs a terminal."""

from __future__ import annotations

import contextlib
import os
import site
import subprocess
import sys
import types
from typing import Any

from IPython.core import page
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Type
from traitlets.config import Config

from . import channel, results
from .installed import SHIMS
from .streams import Output


class Publisher(DisplayPublisher):
    """Sends what `display()` shows, in order with the streams."""

    output: Output

    def publish(self, data: Any, metadata: Any = None, source: Any = None, **_: Any) -> None:
        """Show one MIME bundle."""
        self.output.send(channel.DISPLAY, 0, results.display_json(data, metadata or {}))

    def clear_output(self, wait: bool = False) -> None:
        """Nothing can be taken back."""


class Shell(InteractiveShell):
    """The shell of a machine."""

    display_pub_class = Type(Publisher)
    _printers: list[dict[type, Any]] = []  # noqa: RUF012  # replaced, never changed

    def init_profile_dir(self, profile_dir: Any) -> None:
        """Have no folder in the user's home."""

    def enable_gui(self, gui: Any = None) -> None:
        """There is no graphical loop to enable."""

    def showtraceback(self, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> None:
        """Print the traceback of an error in a magic or formatter."""
        error = exc_tuple[1] if exc_tuple else sys.exc_info()[1]
        if error is not None:
            print("\n".join(results.traceback_lines(error)), file=sys.stderr)  # noqa: T201

    def showsyntaxerror(self, filename: Any = None, running_compiled_code: bool = False) -> None:
        """Print a syntax error."""
        self.showtraceback()

    def has_own_transformers_only(self) -> bool:
        """Whether user code has added no input transformer."""
        manager = self.input_transformer_manager
        counts = tuple(map(len, (manager.cleanup_transforms, manager.line_transforms, manager.token_transformers)))
        if not hasattr(self, "_transformer_counts"):
            self._transformer_counts = counts
        return counts == self._transformer_counts and not self.input_transformers_post

    def has_printer_for(self, kind: type) -> bool:
        """Whether user code has registered a printer for exactly this type with one of the formatters."""
        formatter: Any = self.display_formatter
        formatters = formatter.formatters
        if len(formatters) != len(self._printers):
            self._printers = [each.type_printers for each in formatters.values()]
        return any(kind in printers for printers in self._printers)

    def system(self, cmd: str) -> None:
        """Run a shell command (`!cmd`) on the machine's own streams."""
        sys.stdout.flush()
        sys.stderr.flush()
        command = self.var_expand(cmd, depth=1)  # type: ignore[no-untyped-call]  # IPython's
        done = subprocess.run(command, shell=True, executable="/bin/bash", check=False)  # noqa: S602  # it is the user's
        self.user_ns["_exit_code"] = done.returncode

    system_piped = system_raw = system


def make_shell(output: Output) -> Any:
    """The one shell of this process, whose namespace is the module `__main__`."""
    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    config.InteractiveShell.cache_size = 0
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.enable_tip = False
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if "" not in sys.path:
        sys.path.insert(0, "")
    _look_into_user_site()
    Publisher.output = output
    shell: Any = Shell.instance(config=config, user_module=main)
    shell.builtin_trap.activate()
    shell.has_own_transformers_only()
    shell.set_hook("show_in_pager", page.as_hook(page.display_page), 99)  # type: ignore[no-untyped-call]  # IPython's
    shell.user_ns["exit"] = shell.user_ns["quit"] = sys.exit
    return shell


def _look_into_user_site() -> None:
    """Find what `pip` installs for the user: an isolated interpreter does not, nor what was no folder at its start."""
    if not os.path.isdir(SHIMS):
        return
    folder = site.getusersitepackages()
    with contextlib.suppress(OSError):
        os.makedirs(folder, exist_ok=True)
    places = [place for place, path in enumerate(sys.path) if path.endswith("-packages")]
    sys.path.insert(min(places, default=len(sys.path)), folder)
