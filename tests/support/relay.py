"""A TCP relay that can be cut, so that a test makes a server unreachable for one client only."""

from __future__ import annotations

import contextlib
import socket
import threading


class Relay:
    """Listen on loopback (by default) and forward bytes to `host:port` until `cut`, and again after `mend`, on the same port."""

    def __init__(self, host: str, port: int, *, listen: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self._open: set[socket.socket] = set()
        self._passing = True
        self._listener = socket.create_server((listen, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections and accept no new one."""
        self._passing = False
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._passing = True

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                if not self._passing:
                    client.close()
                    continue
                server = socket.create_connection(self._target)
            except OSError:
                return
            self._open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open -= {source, sink}
        source.close()
