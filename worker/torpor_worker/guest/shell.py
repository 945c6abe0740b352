"""IPython's shell, without what hoards: history, output caches, a code name per source."""

from __future__ import annotations

import json
import sys
import types
from typing import Any

from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from . import channel
from .streams import Output


class Publisher(DisplayPublisher):  # type: ignore[misc]  # IPython has no types
    """Sends what `display()` shows, in order with the streams."""

    output: Output

    def publish(self, data: dict[str, Any], metadata: dict[str, Any] | None = None, **_: Any) -> None:
        """Show one MIME bundle."""
        from .results import bundle_json

        self.output.send(channel.DISPLAY, 0, bundle_json(data, metadata or {}))


class Shell(InteractiveShell):  # type: ignore[misc]  # IPython has no types
    """The shell of a machine."""

    def init_profile_dir(self, profile_dir: Any) -> None:
        """Have no folder in the user's home."""

    def enable_gui(self, gui: Any = None) -> None:
        """There is no graphical loop to enable."""

    def showtraceback(self, *args: Any, **kwargs: Any) -> None:
        """Print nothing: an error is part of the result."""


def make_shell(output: Output) -> Any:
    """The one shell of this process, whose namespace is the module `__main__`."""
    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    config.InteractiveShell.cache_size = 0
    config.InteractiveShell.colors = "nocolor"
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if "" not in sys.path:
        sys.path.insert(0, "")
    Publisher.output = output
    Shell.display_pub_class = Publisher
    shell = Shell.instance(config=config, user_module=main)
    shell.builtin_trap.activate()
    return shell
