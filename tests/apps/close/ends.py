"""Two ends of connections that close in every way, and what each end then sees.

ends.py serve       plays its part on port 7000, and tells on port 7001 what it saw
ends.py call HOST   plays the other part of every scene, and prints what both saw
"""
import errno, select, socket, struct, sys, threading, time

MANY = 100_000
STATES = {1: "ESTABLISHED", 4: "FIN_WAIT1", 5: "FIN_WAIT2", 6: "TIME_WAIT", 7: "CLOSE", 8: "CLOSE_WAIT", 9: "LAST_ACK"}
FLAGS = {select.POLLIN: "IN", select.POLLERR: "ERR", select.POLLHUP: "HUP", select.POLLRDHUP: "RDHUP"}
OPTIONS = {
    "keep-alive": (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    "idle": (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 11),
    "interval": (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 12),
    "count": (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    "user timeout": (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 13_000),
}


def outcome(act, *words):
    """What a call comes to, in a word."""
    try:
        result = act(*words)
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    return f"{len(result)} bytes" if isinstance(result, bytes) else str(result)


def rest(end):
    """All that comes, and how it ends."""
    count = 0
    try:
        while data := end.recv(65536):
            count += len(data)
    except OSError as error:
        return f"{count} bytes, then {errno.errorcode.get(error.errno, error)}"
    return f"{count} bytes, then the end"


def until(end, flags):
    """What poll says once one of the flags is there."""
    poll = select.poll()
    poll.register(end, flags)
    seen = poll.poll(10_000)
    poll.register(end, sum(FLAGS))
    return "+".join(name for flag, name in FLAGS.items() if seen and poll.poll(0)[0][1] & flag)


def until_broken(end):
    return until(end, select.POLLERR | select.POLLHUP)


def state(end):
    return STATES.get(end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0])


def until_state(end, wanted):
    deadline = time.monotonic() + 10
    while state(end) != wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    return state(end)


def reset(end):
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
    return "reset"


def broken(end):
    """What the other end's reset does to each call."""
    return [until_broken(end), rest(end), outcome(end.recv, 1), outcome(end.send, b"x"), outcome(end.getpeername)]


def writes_until_refused(end):
    for _ in range(500):
        if (result := outcome(end.send, b"x")) != "1":
            return [result, outcome(end.send, b"x"), outcome(end.recv, 1)]
        time.sleep(0.01)
    return ["never refused"]


def fill(end):
    """Writes until nothing is taken for a while."""
    end.setblocking(False)
    while select.select([], [end], [], 0.5)[1]:
        try:
            end.send(b"x" * 65536)
        except BlockingIOError:
            time.sleep(0.01)
    end.setblocking(True)


def ends_first(end):
    end.sendall(b"x" * MANY)
    end.shutdown(socket.SHUT_WR)
    closing = until_state(end, "FIN_WAIT2")
    return [closing, outcome(end.send, b"x"), rest(end)]


def ends_last(end):
    heard = rest(end)
    closing = until_state(end, "CLOSE_WAIT")
    time.sleep(0.2)
    end.sendall(b"x" * MANY)
    return [heard, closing, outcome(end.close)]


def ends_at_once(end):
    end.shutdown(socket.SHUT_WR)
    return [rest(end), until(end, select.POLLHUP)]


def leaves(end):
    return [outcome(end.close)]


def speaks_to_nobody(end):
    return [until(end, select.POLLRDHUP), rest(end), *writes_until_refused(end)]


def leaves_without_reading(end):
    until(end, select.POLLIN)
    return [outcome(end.close)]


def is_not_read(end):
    end.sendall(b"x" * 1000)
    return broken(end)


def resets(end):
    return [reset(end)]


def speaks_and_resets(end):
    end.sendall(b"x" * 1000)
    return [reset(end)]


def ends_and_is_reset(end):
    end.shutdown(socket.SHUT_WR)
    return broken(end)


def resets_after_the_end(end):
    return [rest(end), reset(end)]


def writes_into_a_full_network(end):
    fill(end)
    return [outcome(end.sendall, b"x" * 10_000_000), outcome(end.send, b"x"), outcome(end.recv, 1)]


def resets_a_full_network(end):
    fill(end)
    return [reset(end)]


def reads_nothing(end):
    return [until_broken(end)]


def resets_a_writer(end):
    time.sleep(2)
    return [reset(end)]


def describes(end):
    """The options of the end as they are set, and its two addresses."""
    for level, option, value in OPTIONS.values():
        end.setsockopt(level, option, value)
    told = [f"{name} {end.getsockopt(level, option)}" for name, (level, option, _) in OPTIONS.items()]
    info = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    mss, rtt = struct.unpack_from("I", info, 16)[0], struct.unpack_from("I", info, 68)[0]
    names = [name[0] for name in (end.getsockname(), end.getpeername())]
    seen = [*told, state(end), f"MSS {mss >= 536}", f"RTT {0 < rtt < 1_000_000}", *names]
    # The other one has not closed before this one has looked.
    end.sendall(b"!")
    end.recv(1)
    return seen


# The caller's part, and the server's.
PAIRS = {
    "ends first": (ends_first, ends_last),
    "leaves": (leaves, speaks_to_nobody),
    "leaves without reading": (leaves_without_reading, is_not_read),
    "resets": (resets, broken),
    "speaks and resets": (speaks_and_resets, broken),
    "ends and is reset": (ends_and_is_reset, resets_after_the_end),
    "fills and resets": (resets_a_full_network, reads_nothing),
    "writes and is reset": (writes_into_a_full_network, resets_a_writer),
}
SCENES = {
    **{f"caller {name}": pair for name, pair in PAIRS.items()},
    **{f"server {name}": pair[::-1] for name, pair in PAIRS.items()},
    "both end": (ends_at_once, ends_at_once),
    "options and names": (describes, describes),
}
SEEN = {name: [] for name in SCENES}
PLAYED = {name: threading.Event() for name in SCENES}


def accept(port, act):
    listener = socket.create_server(("0.0.0.0", port), backlog=100)
    while True:
        end, _ = listener.accept()
        threading.Thread(target=act, args=(end,), daemon=True).start()


def serve_scene(end):
    scene = end.recv(100).decode()
    end.sendall(b"!")
    if scene in SCENES:
        SEEN[scene] = SCENES[scene][1](end)
        end.close()
        PLAYED[scene].set()


def serve_report(end):
    scene = end.recv(100).decode()
    PLAYED[scene].wait(20)
    end.sendall("; ".join(SEEN[scene]).encode() or b"-")
    end.close()


def begin(host, port, word):
    """Connects, again until the other end is there, and says a word."""
    for _ in range(500):
        try:
            end = socket.create_connection((host, port), 10)
            end.settimeout(20)
            end.sendall(word.encode())
            return end
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise TimeoutError(f"{host} {port}")


def play(host, scene, told):
    end = begin(host, 7000, scene)
    end.recv(1)
    end.settimeout(None)
    seen = SCENES[scene][0](end)
    end.close()
    there = begin(host, 7001, scene).recv(1000).decode()
    told[scene] = f"{scene}: {'; '.join(seen)} | {there}"


if sys.argv[1] == "serve":
    threading.Thread(target=accept, args=(7001, serve_report), daemon=True).start()
    print("ready", flush=True)
    accept(7000, serve_scene)
told = {}
threads = [threading.Thread(target=play, args=(sys.argv[2], scene, told), daemon=True) for scene in SCENES]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(25)
for scene in SCENES:
    print(told.get(scene, f"{scene}: hangs"))
