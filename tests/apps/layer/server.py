"""Servers in Python that tell each client both addresses: server.py WAY PORT."""

import asyncio
import json
import socket
import sys
import threading


def told(name, sock, peer=None):
    peer = peer or sock.getpeername()
    return json.dumps({"name": name, "peer": text(peer), "local": text(sock.getsockname())})


def text(address):
    return "%s:%d" % (address[0].removeprefix("::ffff:"), address[1])


def http(body):
    return (f"HTTP/1.0 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}").encode()


def say(listener):
    print("listening", "%s:%d" % listener.getsockname()[:2], flush=True)


def listener(port, family=socket.AF_INET, **options):
    made = socket.create_server(("", port), family=family, backlog=512, **options)
    say(made)
    return made


def answer(name, client, peer):
    with client:
        client.recv(2048)
        client.sendall(http(told(name, client, peer)))


def blocking(port, **options):
    made = listener(port, **options)
    while True:
        client, peer = made.accept()
        threading.Thread(target=answer, args=(sys.argv[1], client, peer)).start()


def dual(port):
    blocking(port, family=socket.AF_INET6, dualstack_ipv6=True)


def asynchronous(port):
    async def serve(reader, writer):
        await reader.read(2048)
        sock = writer.get_extra_info("socket")
        peer = writer.get_extra_info("peername")
        writer.write(http(told("asyncio", sock, peer)))
        await writer.drain()
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "0.0.0.0", port)
        say(server.sockets[0])
        await server.serve_forever()

    asyncio.run(main())


def record(port):
    """Says whom accept named, and reads nothing."""
    made = listener(port)
    while True:
        client, peer = made.accept()
        print("peer", text(peer), flush=True)
        client.close()


def twice(port):
    """Listens on a port that it listens on."""
    first = listener(port)
    try:
        socket.create_server(("", port))
        print("twice", flush=True)
    except OSError as error:
        print(error.errno, flush=True)
    first.close()
    listener(port).close()


def any_port(_):
    """Listens on a port of the kernel's choice, and connects to it."""
    made = socket.create_server(("127.0.0.1", 0))
    address = made.getsockname()
    client = socket.create_connection(address)
    accepted, peer = made.accept()
    print(json.dumps({
        "same": client.getpeername() == address and client.getsockname() == peer,
        "port": address[1],
    }), flush=True)


def datagrams(port):
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("", port))
    say(made)
    while True:
        data, peer = made.recvfrom(2048)
        body = {"name": "datagrams", "peer": text(peer), "text": data.decode()}
        made.sendto(json.dumps(body).encode(), peer)


{
    "blocking": blocking,
    "asyncio": asynchronous,
    "dual": dual,
    "record": record,
    "twice": twice,
    "any": any_port,
    "datagrams": datagrams,
}[sys.argv[1]](int(sys.argv[2]))
