"""What an instruction reads as its standard input."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Stdin:
    """Given with the code: `input()` reads its lines in order, and then meets the end, unless more may follow."""

    text: str
    open: bool = False
    """Whether more may follow, as entries of kind `input`."""

    def to_frame(self) -> dict[str, Any]:
        """As the guest is told, with the code."""
        return {"stdin": base64.b64encode(self.text.encode("utf-8", "surrogatepass")).decode(), "stdin_open": self.open}
