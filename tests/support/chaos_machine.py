"""What one machine of the chaos suite does, and what it must be by its own history."""

from __future__ import annotations

import ast
import hashlib
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

SETUP = """\
import hashlib, queue, signal, threading, time
before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
VECTOR
tokens, heard, counter, jobs = [], [], 0, queue.SimpleQueue()
def listen():
    while True:
        token, done = jobs.get()
        heard.append(token)
        done.set()
threading.Thread(target=listen, daemon=True).start()
signal.pthread_sigmask(signal.SIG_SETMASK, before)
open('log', 'w').close()
def add(token):
    # All of it or nothing: an interrupt waits until it is done.
    global counter
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        tokens.append(token)
        counter += token
        with open('log', 'a') as log:
            log.write(f'{token}\\n')
        done = threading.Event()
        jobs.put((token, done))
        done.wait()
        vector[token % 64] += token
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
def state():
    digest = hashlib.sha256(open('log', 'rb').read()).hexdigest()
    return [tokens, counter, digest, [int(number) for number in vector], heard]
"""
ARRAY = "import numpy; vector = numpy.zeros(64, dtype=int)"
LIST = "vector = [0] * 64"

TOKEN = re.compile(r"^add\((\d+)\)", re.MULTILINE)
LOOP = re.compile(r"for i in range\((\d+)\):\n {4}print\(i\)")


@dataclass(eq=False)
class Machine:
    """What clients know of one machine."""

    name: str
    set_up: int = -1
    """The seq behind which it has all that instructions use; -1 for a fork, which has it from the beginning."""
    base: list[int] = field(default_factory=list)
    """Tokens that a fork began with."""
    answers: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Results as they were given first, by seq."""
    deleted: bool = False
    still: threading.Lock = field(default_factory=threading.Lock)
    """Whoever has it may rely on no rollback."""


Rows = dict[int, dict[str, Any]]


def holds(row: dict[str, Any]) -> bool:
    """Whether an instruction was answered with a value, and nothing has taken that back with a notice."""
    answered = row["result"] is not None and "error" not in row["result"]
    return answered and not row["undone"] and row["ended_by"] is None and not row["rolled_back"]


def tokens_of(rows: Rows) -> dict[int, int]:
    """The seq that added each token."""
    return {int(found[1]): seq for seq, row in rows.items() if (found := TOKEN.search(row["code"]))}


def contradictions(value: str) -> Iterator[str]:
    """What in the `repr` of a machine's state does not fit the rest of it."""
    tokens, counter, digest, vector, heard = ast.literal_eval(value)
    if counter != sum(tokens):
        yield f"its counter is {counter} after {tokens}"
    if digest != hashlib.sha256("".join(f"{token}\n" for token in tokens).encode()).hexdigest():
        yield f"its file is not that of {tokens}"
    if vector != [sum(token for token in tokens if token % 64 == place) for place in range(64)]:
        yield f"its array is {vector} after {tokens}"
    if heard != tokens:
        yield f"its thread has heard {heard} of {tokens}"


def has(value: str) -> list[int]:
    """The tokens in the `repr` of a machine's state."""
    tokens: list[int] = ast.literal_eval(value)[0]
    return tokens


def deviations(tokens: list[int], base: list[int], seq: int | None, before: Rows, after: Rows) -> Iterator[str]:
    """What in a state with all that was done before instruction `seq` is not as it must be by the history.

    None: in some earlier state. `before` is the history before the state was shown, and `after` the one after that,
    both without a rollback in between.
    """
    if tokens[: len(base)] != base:
        yield f"it began with {base} and has {tokens}"
    own = tokens[len(base) :]
    seqs = {token: by for token, by in tokens_of(after).items() if token not in base}
    effects = [seqs.get(token, -1) for token in own]
    if twice := [by for by, times in Counter(effects).items() if times > 1]:
        yield f"took effect twice: {twice}"
    if effects != sorted(effects):
        yield f"took effect in the wrong order: {effects}"
    if strange := [by for by in effects if by == -1 or (seq is not None and by >= seq)]:
        yield f"has the effects of {strange} before {seq}"
    if seq is not None:
        lost = [by for by in seqs.values() if by < seq and holds(after[by]) and by not in effects]
        if lost:
            yield f"lost: {lost}"
    void = [by for by in effects if by in before and (before[by]["undone"] or before[by]["rolled_back"])]
    if void:
        yield f"has effects of what was undone or left behind: {void}"
