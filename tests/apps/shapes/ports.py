"""ports.py listen|call HOST: how servers share ports, and how many a client gets an answer of."""
import errno, os, socket, sys, threading, time

MANY = range(20000, 20200)
SPREAD, SHARED, AGAIN, TOLD = 7001, 7002, 7003, 7004
WORKERS = 4
CALLS = 80


def listener(port, *options, host="0.0.0.0", kind=socket.SOCK_STREAM):
    end = socket.socket(socket.AF_INET, kind)
    for option in options:
        end.setsockopt(socket.SOL_SOCKET, option, 1)
    end.bind((host, port))
    if kind == socket.SOCK_STREAM:
        end.listen(100)
    return end


def attempt(*words, **more):
    try:
        listener(*words, **more).close()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "bound"


def answer(end, word):
    while True:
        client, _ = end.accept()
        client.sendall(word.encode())
        client.close()


def work(port, workers, make):
    """Workers that each have a listener of their own, or one that they inherit."""
    for number in range(workers):
        if os.fork() == 0:
            answer(make(), str(number))


def taken():
    """What binds come to where a port is taken, in part or not any more."""
    reuse, share = socket.SO_REUSEADDR, socket.SO_REUSEPORT
    udp = listener(AGAIN, kind=socket.SOCK_DGRAM)
    first = listener(AGAIN)
    # Not before a client is there.
    client, _ = first.accept()
    told = [
        attempt(AGAIN),
        attempt(AGAIN, reuse),
        attempt(AGAIN, share),
        attempt(AGAIN, host="127.0.0.1"),
        attempt(AGAIN, kind=socket.SOCK_DGRAM),
        attempt(AGAIN, host="192.0.2.1"),
        attempt(AGAIN + 10, host=client.getsockname()[0]),
    ]
    first.close()
    told += [attempt(AGAIN), attempt(AGAIN, reuse)]
    client.close()
    udp.close()
    return " ".join(told)


def call(port, host):
    for _ in range(500):
        try:
            with socket.create_connection((host, port), 10) as end:
                return end.recv(1000).decode()
        except ConnectionRefusedError:
            time.sleep(0.02)
    return "refused"


if sys.argv[1] == "listen":
    work(SPREAD, WORKERS, lambda: listener(SPREAD, socket.SO_REUSEPORT))
    shared = listener(SHARED)
    work(SHARED, WORKERS, lambda: shared)
    shared.close()
    for port in MANY:
        threading.Thread(target=answer, args=(listener(port), str(port)), daemon=True).start()
    print("ready", flush=True)
    told = taken()
    answer(listener(TOLD), told)
host = sys.argv[2]
for port in SPREAD, SHARED, MANY[-1]:
    call(port, host)
print("many", sum(call(port, host) == str(port) for port in MANY))
print("spread over", len({call(SPREAD, host) for _ in range(CALLS)}))
print("shared answers", sum(call(SHARED, host).isdigit() for _ in range(CALLS)))
with socket.create_connection((host, AGAIN), 10) as end:
    end.recv(1)
print("taken", call(TOLD, host))
