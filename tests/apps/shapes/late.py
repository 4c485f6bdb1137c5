"""late.py listen|call HOST: how long after listen(2) the first client comes in, port by port."""
import random, socket, sys, time

PORTS = range(8000, 8040)


def call(host, port):
    while True:
        try:
            socket.create_connection((host, port), 1).recv(1)
            return
        except OSError:
            time.sleep(0.0002)


if sys.argv[1] == "call":
    for port in PORTS:
        call(sys.argv[2], port)
    time.sleep(600)
took = []
for port in PORTS:
    # At no time in particular.
    time.sleep(random.uniform(0.02, 0.06))
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", port))
        listener.settimeout(10)
        begun = time.monotonic()
        listener.listen()
        end, _ = listener.accept()
        took.append(1000 * (time.monotonic() - begun))
        end.sendall(b"!")
        end.close()
took.sort()
print(f"{took[0]:.1f} {took[len(took) // 2]:.1f} {took[-1]:.1f}", flush=True)
