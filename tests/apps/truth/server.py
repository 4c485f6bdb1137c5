"""Ends connections in different ways, by port; on IPv4 and IPv6."""
import socket, struct, threading, time


def answers(client):
    while data := client.recv(100):
        client.sendall(data)


def resets(client):
    client.recv(1)
    # Not before the client has ended what it sends.
    time.sleep(0.1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def closes(client):
    # What is left unread would make it a reset.
    client.recv(100)
    client.sendall(b"bye")


def half_closes(client):
    client.sendall(b"first")
    client.shutdown(socket.SHUT_WR)
    while client.recv(100):
        pass


def serve(port, act):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        client, _ = listener.accept()

        def run(client=client):
            with client:
                act(client)

        threading.Thread(target=run, daemon=True).start()


ACTS = {7000: answers, 7002: resets, 7003: closes, 7004: half_closes}
threads = [threading.Thread(target=serve, args=pair) for pair in ACTS.items()]
for thread in threads:
    thread.start()
print("ready", flush=True)
for thread in threads:
    thread.join()
