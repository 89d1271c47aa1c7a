"""Serve DNS for the Services of a cluster to the pods of a node, in place of CoreDNS.

    names.py KUBECONFIG ADDRESS

An A query for `<service>.<namespace>.svc.cluster.local` returns the current address of the Service from the API server. Other
types return no records, and all other names return NXDOMAIN. The file is run by its path, so it must import only the standard
library.
"""

from __future__ import annotations

import base64
import json
import re
import socketserver
import ssl
import struct
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

SERVICE = re.compile(r"([a-z0-9-]+)\.([a-z0-9-]+)\.svc\.cluster\.local", re.IGNORECASE)
ADDRESS_TYPE = 1
SECONDS = 5
"""Time to live of a record, and timeout of a request to the API server."""
NO_ERROR, FAILED, NO_SUCH_NAME = 0, 2, 3
_ANSWER = 0x8400  # response, authoritative


class Services:
    """Look up Services in the API server of a kubeconfig, which must be JSON and have a token."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        self._url = cluster["server"]
        self._headers = {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}
        self._trust = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())

    def __call__(self, name: str, namespace: str) -> str | None:
        """Return the address of a Service, or None if it does not exist. Raises `OSError` if the API server is unreachable."""
        url = f"{self._url}/api/v1/namespaces/{namespace}/services?fieldSelector=metadata.name%3D{name}"
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=self._headers), timeout=SECONDS, context=self._trust
        ) as answer:
            found = json.load(answer)["items"]
        return str(found[0]["spec"]["clusterIP"]) if found else None


def answer(query: bytes, service: Callable[[str, str], str | None]) -> bytes:
    """Return the DNS response to a query with one question."""
    labels, place = [], 12
    while length := query[place]:
        labels.append(query[place + 1 : place + 1 + length].decode("ascii", "replace"))
        place += 1 + length
    question = query[12 : place + 5]
    wanted = struct.unpack("!H", query[place + 1 : place + 3])[0]
    address, code = None, NO_SUCH_NAME
    if named := SERVICE.fullmatch(".".join(labels)):
        try:
            address = service(named[1].lower(), named[2].lower())
            code = NO_SUCH_NAME if address is None else NO_ERROR
        except OSError:
            code = FAILED
    record = b""
    if address is not None and wanted == ADDRESS_TYPE:
        octets = bytes(map(int, address.split(".")))
        record = struct.pack("!HHHIH", 0xC00C, ADDRESS_TYPE, 1, SECONDS, len(octets)) + octets
    recursion = struct.unpack("!H", query[2:4])[0] & 0x0100  # the response repeats "recursion desired" (RFC 1035, 4.1.1)
    return query[:2] + struct.pack("!HHHHH", _ANSWER | recursion | code, 1, 1 if record else 0, 0, 0) + question + record


def main(kubeconfig: str, address: str) -> None:
    services = Services(Path(kubeconfig))

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            query, socket = self.request
            socket.sendto(answer(query, services), self.client_address)

    with socketserver.ThreadingUDPServer((address, 53), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
