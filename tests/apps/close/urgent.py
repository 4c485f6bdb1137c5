"""urgent.py serve|call HOST: what each end gets of `ab`, an urgent `x` and `cd` from the other."""
import socket, sys, time


def speak(end):
    end.sendall(b"ab")
    end.send(b"x", socket.MSG_OOB)
    end.sendall(b"cd")
    end.shutdown(socket.SHUT_WR)


def listen(end, inline):
    end.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, inline)
    end.settimeout(3)
    time.sleep(0.3)
    try:
        urgent = end.recv(1, socket.MSG_OOB).decode()
    except OSError as error:
        urgent = error.strerror
    heard = b""
    try:
        while data := end.recv(100):
            heard += data
    except OSError as error:
        heard += repr(error).encode()
    return f"{heard.decode()}, urgent {urgent}"


def end_of(end):
    word = end.recv(1)
    if word == b"s":
        speak(end)
        end.recv(1)
    else:
        end.sendall(b"!" + listen(end, word == b"i").encode())


if sys.argv[1] == "serve":
    listener = socket.create_server(("0.0.0.0", 7000))
    print("ready", flush=True)
    while True:
        end_of(listener.accept()[0])
for word in b"ol", b"i":
    with socket.create_connection((sys.argv[2], 7000), 5) as end:
        end.sendall(word[:1])
        speak(end)
        print("there", "inline" if word == b"i" else "apart", end.recv(100).decode()[1:])
for inline in False, True:
    with socket.create_connection((sys.argv[2], 7000), 5) as end:
        end.sendall(b"s")
        print("here", "inline" if inline else "apart", listen(end, inline))
