"""The interpreter's end of the channel, which comes back when user code has closed its fds."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket

from . import channel

OWN_FD = 1000
"""From here on are the agent's own fds, out of the way of code that closes `range(3, 256)`."""


class Connection:
    """A socket to the supervisor that is checked, and made again if it is gone."""

    def __init__(self, fd: int, address: str) -> None:
        self._address = address
        self.times_made = 0
        """How often; whoever watches its fd must begin again each time, though the number may be the same."""
        high = moved(fd)
        os.close(fd)
        self._adopt(socket.socket(fileno=high))
        self._spare = [moved(1), moved(2)]
        """Copies of fds 1 and 2."""

    def _adopt(self, connection: socket.socket) -> None:
        self._socket = connection
        self._fd = connection.fileno()
        self._inode = os.fstat(self._fd).st_ino
        self.times_made += 1

    def fileno(self) -> int:
        """Its fd."""
        return self._fd

    def send(self, packet: bytes) -> None:
        """Send one packet, whole. Raises `BlockingIOError` if there is no room."""
        try:
            self._socket.send(packet, socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise
        except OSError:
            self._reconnect()
            self._socket.send(packet, socket.MSG_DONTWAIT)

    def receive(self) -> bytes:
        """One packet; waits for it."""
        while True:
            try:
                packet = self._socket.recv(channel.PACKET.size + channel.PACKET_BYTES)
            except OSError:
                packet = b""
            if packet:
                return packet
            self._reconnect()

    def receive_fd(self) -> int | None:
        """The descriptor that the next packet brings; None if it brings none, or the connection is lost."""
        try:
            _, fds, _, _ = socket.recv_fds(self._socket, channel.PACKET.size, 1)
        except OSError:
            return None
        return fds[0] if fds else None

    def waiting(self) -> bool:
        """Whether a packet waits to be received."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def is_own(self) -> bool:
        """Whether its fd is still the socket."""
        return is_open(self._fd, self._inode)

    def repair(self) -> bool:
        """Make good what user code did to the fds; whether there was anything."""
        repaired = False
        if not is_open(self._fd, self._inode):
            self._reconnect()
            repaired = True
        for fd, spare in zip((1, 2), self._spare, strict=True):
            if not is_open(fd):
                os.dup2(spare, fd)
                repaired = True
        if not is_open(0):
            null = os.open(os.devnull, os.O_RDONLY)
            if null != 0:
                os.dup2(null, 0)
                os.close(null)
            repaired = True
        return repaired

    def _reconnect(self) -> None:
        old, self._socket = self._socket, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if old.fileno() != self._socket.fileno():
            if is_open(old.fileno(), self._inode):
                old.close()
            else:
                old.detach()
        else:
            old.detach()
        try:
            self._socket.connect(self._address)
        except ConnectionRefusedError:  # the supervisor is gone, and with it everything
            os._exit(1)
        _, ancillary, _, _ = self._socket.recvmsg(64, socket.CMSG_SPACE(2 * array.array("i").itemsize))
        fds = array.array("i")
        for _, _, data in ancillary:
            fds.frombytes(data)
        high = moved(self._socket.fileno())
        self._socket.close()
        self._adopt(socket.socket(fileno=high))
        for fd in self._spare:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._spare = [moved(fd) for fd in fds]
        for fd in fds:
            os.close(fd)
        for fd, spare in zip((1, 2), self._spare, strict=True):
            os.dup2(spare, fd)


def is_open(fd: int, inode: int | None = None) -> bool:
    """Whether it is; with `inode`, also whether it is still that."""
    try:
        found = os.fstat(fd).st_ino
    except OSError:
        return False
    return inode is None or found == inode


def moved(fd: int) -> int:
    """A copy, out of the way of user code."""
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, OWN_FD)
    except OSError:
        return os.dup(fd)
