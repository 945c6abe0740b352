"""What could follow at a cursor, as IPython finds it in the user's namespace."""

from __future__ import annotations

import itertools
import json
from typing import Any

from IPython.core.completer import provisionalcompleter, rectify_completions

MATCHES_LIMIT = 200
MATCH_CHARACTERS = 500


def complete(shell: Any, request: bytes) -> dict[str, Any]:
    """Matches for `{"code", "cursor"}`, all in place of the characters from `start` to `end`.

    It looks at the user's objects, so whatever their code raises may come out of it, and it may take for ever.
    """
    fields = json.loads(request)
    code, cursor = fields["code"], fields["cursor"]
    completer = shell.Completer
    completer.use_jedi = False  # it is slow at first, and reads the source of whole libraries
    with provisionalcompleter():
        found = itertools.islice(completer.completions(code, cursor), MATCHES_LIMIT)
        whole = list(rectify_completions(code, found))
    matches = list(dict.fromkeys(each.text for each in whole if len(each.text) <= MATCH_CHARACTERS))
    if not matches:
        return {"matches": [], "start": cursor, "end": cursor}
    return {"matches": matches, "start": whole[0].start, "end": whole[0].end}
