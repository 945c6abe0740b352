"""Saying at once, and in a sentence, that there is no network, wherever user code tries to use one."""

from __future__ import annotations

import errno
import functools
import ipaddress
import socket
from typing import Any

from .installed import NO_NETWORK, installed_sentence


def sentence() -> str:
    """Why it fails, and what there is instead."""
    return f"{NO_NETWORK} {installed_sentence()}"


def is_inside(host: object) -> bool:
    """Whether a host, as given to a socket call, is this machine."""
    if host in (None, "", b"", "localhost", b"localhost", "<broadcast>"):
        return True
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    if text.lower() == socket.gethostname().lower() or text.lower().endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def is_numeric(host: object) -> bool:
    """Whether a host is an address and needs no resolving."""
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def explain(shell: Any) -> None:
    """Make connecting and resolving fail with the sentence."""
    kind = socket.socket
    for name, place in (("connect", 0), ("connect_ex", 0), ("sendto", -1)):
        setattr(kind, name, _guarded(getattr(kind, name), place, returns=name == "connect_ex"))
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
        setattr(socket, name, _resolving(getattr(socket, name)))


def _guarded(method: Any, place: int, *, returns: bool) -> Any:
    @functools.wraps(method)
    def guarded(self: socket.socket, *args: Any) -> Any:
        address: Any = args[place] if args else None
        is_ip = self.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple) and len(address) > 1
        if is_ip and not is_inside(address[0]):
            if returns:
                return errno.ENETUNREACH
            raise OSError(errno.ENETUNREACH, sentence())
        return method(self, *args)

    return guarded


def _resolving(function: Any) -> Any:
    @functools.wraps(function)
    def resolving(host: Any, *args: Any, **kwargs: Any) -> Any:
        if is_inside(host) or is_numeric(host):
            return function(host, *args, **kwargs)
        raise socket.gaierror(socket.EAI_AGAIN, sentence())

    return resolving
