"""Unix sockets of every kind, at places that try who looks for them."""

import os
import socket
import threading


def listener(name, kind=socket.SOCK_STREAM):
    made = socket.socket(socket.AF_UNIX, kind)
    made.bind(name)
    made.listen(64)
    return made


def echo(client):
    said = b"".join(iter(lambda: client.recv(65536), b""))
    client.sendall(said + b"!")
    client.close()


def packets(client):
    for said in iter(lambda: client.recv(1 << 20), b""):
        client.send(b"%d:" % len(said) + said[:9])
    client.close()


def hang_up(client):
    client.recv(1)
    client.close()


def serve(listener, act):
    while True:
        threading.Thread(target=act, args=[listener.accept()[0]]).start()


PLACES = [
    (listener("/run/stream.sock"), echo),
    (listener("\0lab-stream"), echo),
    (listener("/run/packets.sock", socket.SOCK_SEQPACKET), packets),
    (listener("/run/hang-up.sock"), hang_up),
    (listener("/run/owned.sock"), echo),
    (listener("/run/" + "l" * 102), echo),
]
os.chown("/run/owned.sock", 999, 999)
os.chmod("/run/owned.sock", 0o700)
os.symlink("/run/stream.sock", "/run/link.sock")
# In the agent's own files there is such a socket.
os.symlink("../../../../run/mirrord/agent.sock", "/run/up.sock")
socket.socket(socket.AF_UNIX).bind("/run/deaf.sock")
open("/run/file.sock", "w").close()
for place, act in PLACES[1:]:
    threading.Thread(target=serve, args=[place, act]).start()
print("ready", flush=True)
serve(*PLACES[0])
