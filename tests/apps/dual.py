"""Serves HTTP on port 80 and datagrams on port 90, of both families; says whom it has seen."""
import socket, threading


def name(address):
    return f"{address[0]} {address[1]}"


def datagrams():
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.bind(("::", 90))
    while True:
        _, peer = server.recvfrom(100)
        print("datagram", name(peer), flush=True)
        server.sendto(b"local " + name(peer).encode(), peer)


threading.Thread(target=datagrams, daemon=True).start()
server = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    client, peer = server.accept()
    print("connection", name(peer), "at", name(client.getsockname()), flush=True)
    client.recv(1000)
    client.sendall(b"HTTP/1.0 200 OK\r\n\r\nlocal " + name(peer).encode())
    client.close()
