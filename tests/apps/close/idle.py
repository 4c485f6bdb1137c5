"""idle.py HOST SECONDS: says a word to the other end's echo, and another one after so long."""
import socket, sys, threading, time


def answer(end):
    while data := end.recv(100):
        end.sendall(data)


def serve():
    listener = socket.create_server(("0.0.0.0", 7000))
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


threading.Thread(target=serve, daemon=True).start()
while True:
    try:
        end = socket.create_connection((sys.argv[1], 7000), 5)
        break
    except ConnectionRefusedError:
        time.sleep(0.1)
for pause in 0, int(sys.argv[2]):
    time.sleep(pause)
    end.sendall(b"word")
    print(end.recv(100).decode(), pause, flush=True)
time.sleep(600)
