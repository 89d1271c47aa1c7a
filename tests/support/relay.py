"""A TCP relay that can be cut or fall silent, so that a test makes a server unreachable for one client only."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Relay:
    """Listen on loopback (by default) and forward bytes to `host:port` until `cut`, and again after `mend`, on the same port.

    After `silence`, connections stay open and new ones are accepted, but no byte passes, as with a server stopped by SIGSTOP. With
    `seconds_late` set, each piece passes so much later.
    """

    def __init__(self, host: str, port: int, *, listen: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self._open: set[socket.socket] = set()
        self._passing = True
        self._speaking = threading.Event()
        self._speaking.set()
        self.seconds_late = 0.0
        self._listener = socket.create_server((listen, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections and accept no new one."""
        self._passing = False
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def silence(self) -> None:
        self._speaking.clear()

    def mend(self) -> None:
        """Forward again, also what was held back in silence."""
        self._passing = True
        self._speaking.set()

    def close(self) -> None:
        self.cut()
        self._speaking.set()
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
                self._speaking.wait()
                time.sleep(self.seconds_late)
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open -= {source, sink}
        source.close()
