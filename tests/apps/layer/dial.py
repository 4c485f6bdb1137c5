"""What a connection in each way comes to: dial.py IP:PORT… (JSON, without ephemeral ports)."""

import asyncio
import errno
import json
import select
import socket
import sys


def told(sock):
    sock.settimeout(10)
    sock.sendall(b"whoami\n")
    seen = json.loads(sock.makefile().readline())
    return ["ok", sock.getsockname()[0], sock.getpeername(), seen["name"], seen["peer"].split(":")[0]]


def name(error):
    return errno.errorcode.get(error.errno, str(error))


def blocking(to):
    with socket.socket() as sock:
        sock.connect(to)
        return told(sock)


def timed(to):
    with socket.create_connection(to, timeout=10) as sock:
        return told(sock)


def nonblocking(to):
    with socket.socket() as sock:
        sock.setblocking(False)
        begun = sock.connect_ex(to)
        if begun not in (0, errno.EINPROGRESS):
            raise OSError(begun, "")
        select.select([], [sock], [], 10)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, "")
        return [errno.errorcode.get(begun, begun), told(sock)]


def polled(to):
    """A socket that fails may be seen connected for a moment; the second call tells."""
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.connect_ex(to)
        poll = select.epoll()
        poll.register(sock, select.EPOLLOUT)
        poll.poll(10)
        return errno.errorcode.get(sock.connect_ex(to), "connected")


def datagram(to):
    """The target's namespace tells by ICMP; what is shown is whether anything comes back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(to)
        return [sock.getsockname()[0], sock.getpeername()]


async def streams(to):
    reader, writer = await asyncio.wait_for(asyncio.open_connection(*to), 10)
    writer.write(b"whoami\n")
    seen = json.loads(await reader.readline())
    writer.close()
    return ["ok", writer.get_extra_info("sockname")[0], seen["peer"].split(":")[0]]


def asynchronous(to):
    return asyncio.run(streams(to))


for word in sys.argv[1:]:
    host, port = word.rsplit(":", 1)
    for way in [blocking, timed, nonblocking, polled, asynchronous, datagram]:
        try:
            result = way((host, int(port)))
        except OSError as error:
            result = name(error)
        print(json.dumps([word, way.__name__, result]))
