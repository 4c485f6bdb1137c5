"""What comes of connecting to each unix socket, a line each."""

import errno
import os
import select
import socket
import sys


def attempt(name, kind=socket.SOCK_STREAM, blocking=True):
    client = socket.socket(socket.AF_UNIX, kind)
    client.setblocking(blocking)
    number = client.connect_ex(name)
    client.setblocking(True)
    client.settimeout(20)
    print(repr(name), kind.name, blocking, errno.errorcode.get(number, "ok"), end=" ")
    if number:
        print()
        return None
    # Behind a link, the kernel tells the name that the socket was bound to.
    peer = "" if "link" in name else client.getpeername()
    print("peer", repr(peer), "own", repr(client.getsockname()), end=" ")
    print(errno.errorcode.get(client.connect_ex(name)), flush=True)
    return client


def echo(name, blocking=True, size=3_000_000):
    client = attempt(name, blocking=blocking)
    if client is None:
        return
    said = os.urandom(size)
    child = os.fork()
    if child == 0:
        client.sendall(said)
        client.shutdown(socket.SHUT_WR)
        os._exit(0)
    heard = b"".join(iter(lambda: client.recv(65536), b""))
    os.waitpid(child, 0)
    print("  echo", heard == said + b"!")


def packets(name):
    client = attempt(name, socket.SOCK_SEQPACKET)
    if client is None:
        return
    heard = []
    for size in [1, 9, 65536, 150_000]:
        client.send(b"x" * size)
        heard.append(client.recv(1 << 20))
    client.shutdown(socket.SHUT_WR)
    print("  packets", heard, client.recv(1))


def hang_up(name):
    client = attempt(name)
    if client is None:
        return
    client.sendall(b"more than one")
    try:
        print("  heard", client.recv(1))
    except OSError as error:
        print("  heard", errno.errorcode[error.errno])
    select.select([client], [], [], 20)
    try:
        for _ in range(100):
            client.sendall(b"x")
            select.select([], [], [], 0.05)
    except OSError as error:
        print("  then", errno.errorcode[error.errno])


def own():
    """One of the program's own, which no pattern names."""
    mine = socket.socket(socket.AF_UNIX)
    mine.bind("\0mine-%d" % os.getpid())
    mine.listen()
    client = socket.socket(socket.AF_UNIX)
    client.connect(mine.getsockname())
    theirs = mine.accept()[0]
    client.sendall(b"hello")
    print("own", theirs.recv(9), client.getpeername() == mine.getsockname())


for run in [echo, lambda name: echo(name, False)]:
    for name in ["/run/stream.sock", "\0lab-stream", "/run/link.sock", "/run/" + "l" * 102]:
        run(name)
packets("/run/packets.sock")
if "reset" in sys.argv:
    hang_up("/run/hang-up.sock")
echo("/run/owned.sock")
for name in ["deaf", "file", "absent", "up", "packets", "mirrord/agent", "file.sock/x"]:
    echo("/run/%s.sock" % name)
echo("\0lab-absent")
attempt("/run/stream.sock", socket.SOCK_SEQPACKET)
own()
