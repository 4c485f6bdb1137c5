"""datagrams.py echo|call HOST: datagrams of both families there and back, up to the largest."""
import socket, sys, threading, time

SIZES = {socket.AF_INET: [1472, 1473, 9000, 65507], socket.AF_INET6: [1452, 1453, 9000, 65487, 65527]}


def echo(family, any):
    server = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.bind((any, 7000))
    while True:
        payload, peer = server.recvfrom(65536)
        server.sendto(payload, peer)


def back(family, host, size):
    end = socket.socket(family, socket.SOCK_DGRAM)
    end.settimeout(1)
    payload = bytes(index * index % 251 for index in range(size))
    # Datagrams may be lost.
    for _ in range(15):
        try:
            end.sendto(payload, (host, 7000))
            return "the same" if end.recv(65536) == payload else "others"
        except TimeoutError:
            pass
        except OSError as error:
            return error.strerror
    return "nothing"


if sys.argv[1] == "echo":
    threading.Thread(target=echo, args=(socket.AF_INET6, "::"), daemon=True).start()
    print("ready", flush=True)
    echo(socket.AF_INET, "0.0.0.0")
for family, sizes in SIZES.items():
    host = socket.getaddrinfo(sys.argv[2], 7000, family)[0][4][0]
    for size in sizes:
        print(family.name, size, back(family, host, size))
