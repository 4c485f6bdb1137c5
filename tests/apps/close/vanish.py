"""vanish.py serve|call HOST: what an end learns when the other one is gone without a word."""
import errno, select, socket, sys, threading, time

PATIENCE = 7


def learns(end, seconds=PATIENCE):
    poll = select.poll()
    poll.register(end, select.POLLIN)
    if not poll.poll(1000 * seconds):
        return "nothing"
    try:
        return f"{len(end.recv(1))} bytes"
    except OSError as error:
        return errno.errorcode[error.errno]


def is_quiet(end):
    return learns(end)


def keeps_alive(end):
    for option in socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT:
        end.setsockopt(socket.IPPROTO_TCP, option, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return learns(end)


def writes(end):
    try:
        for _ in range(10 * PATIENCE):
            end.send(b"x")
            time.sleep(0.1)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "nothing"


WAYS = {b"q": is_quiet, b"k": keeps_alive, b"w": writes}


def watch(way, end):
    time.sleep(1)
    # In one piece: two of them may be said at once.
    sys.stdout.write(f"{WAYS[way].__name__}: {WAYS[way](end)}\n")


def connect():
    while True:
        try:
            return socket.create_connection((sys.argv[2], 7000))
        except ConnectionRefusedError:
            time.sleep(0.05)


def ends():
    if sys.argv[1] == "serve":
        listener = socket.create_server(("0.0.0.0", 7000))
        print("ready", flush=True)
        for _ in WAYS:
            end, _ = listener.accept()
            yield end.recv(1), end
    else:
        for way in WAYS:
            end = connect()
            end.send(way)
            yield way, end


threads = [threading.Thread(target=watch, args=pair) for pair in list(ends())]
print("connected", flush=True)
for thread in threads:
    thread.start()
