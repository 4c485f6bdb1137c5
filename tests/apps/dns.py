"""A DNS server of a few names, over UDP and TCP.

Names of the zone are answered, every other one does not exist. An answer that does not fit into
512 bytes is truncated over UDP, as a resolver without EDNS must see it.
"""

import socketserver
import struct
import sys
import threading

A, MX, TXT, AAAA, SRV = 1, 15, 16, 28, 33


def name(text):
    labels = [label.encode() for label in text.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def text(value):
    parts = [value[at:at + 255].encode() for at in range(0, len(value), 255)]
    return b"".join(bytes([len(part)]) + part for part in parts)


def address(value):
    return bytes(int(part) for part in value.split("."))


ZONE = {
    ("orders.corp.test", A): [address("10.9.8.7")],
    ("db.eu.corp.test", A): [address("10.9.8.8")],
    ("db.eu", A): [address("10.9.8.99")],
    ("many.corp.test", A): [address(f"10.9.7.{last}") for last in range(1, 6)],
    ("orders.corp.test", TXT): [text("version=7")],
    ("large.corp.test", TXT): [text("x" * 240 + str(part)) for part in range(8)],
    ("corp.test", MX): [struct.pack("!H", 10) + name("mail.corp.test")],
    ("_http._tcp.corp.test", SRV): [struct.pack("!HHH", 1, 2, 8080) + name("orders.corp.test")],
}
NAMES = {owner for owner, _ in ZONE} | {"mail.corp.test"}


def question(message):
    at, labels = 12, []
    while message[at]:
        labels.append(message[at + 1:at + 1 + message[at]].decode())
        at += 1 + message[at]
    kind, _ = struct.unpack("!HH", message[at + 1:at + 5])
    return ".".join(labels).lower(), kind, message[12:at + 5]


def answer(message, limit):
    owner, kind, asked = question(message)
    print("query", owner, kind, "tcp" if limit > 512 else "udp", flush=True)
    records = ZONE.get((owner, kind), [])
    body = b"".join(
        b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 5, len(data)) + data for data in records
    )
    flags = 0x8580 | (0 if owner in NAMES else 3)
    count = len(records)
    if 12 + len(asked) + len(body) > limit:
        flags, body, count = flags | 0x0200, b"", 0
    return message[:2] + struct.pack("!HHHHH", flags, 1, count, 0, 0) + asked + body


class Udp(socketserver.BaseRequestHandler):
    def handle(self):
        message, socket = self.request
        socket.sendto(answer(message, 512), self.client_address)


class Tcp(socketserver.StreamRequestHandler):
    def handle(self):
        while head := self.rfile.read(2):
            reply = answer(self.rfile.read(struct.unpack("!H", head)[0]), 65535)
            self.wfile.write(struct.pack("!H", len(reply)) + reply)


class TcpServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


tcp = TcpServer(("0.0.0.0", 53), Tcp)
threading.Thread(target=tcp.serve_forever, daemon=True).start()
print("ready", file=sys.stderr, flush=True)
socketserver.ThreadingUDPServer(("0.0.0.0", 53), Udp).serve_forever()
