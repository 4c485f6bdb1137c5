"""client.py NAME=ADDRESS,PORT…: what each connection comes to, in each way that Python has."""
import asyncio, errno, select, socket, sys, time

WORDS = b"words"


def name(error):
    if isinstance(error, socket.gaierror):
        return f"gaierror {error.errno}"
    return errno.errorcode.get(error.errno, type(error).__name__)


def talk(client):
    client.setblocking(True)
    client.settimeout(10)
    client.sendall(WORDS)
    client.shutdown(socket.SHUT_WR)
    heard = b""
    while data := client.recv(100):
        heard += data
    return heard.decode()


def blocking(host, port):
    with socket.create_connection((host, port)) as client:
        return f"connected {talk(client)}"


def polled(host, port):
    family, kind, _, _, at = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as client:
        client.setblocking(False)
        begun = client.connect_ex(at)
        if begun != errno.EINPROGRESS:
            raise OSError(begun, "at once")
        ready = select.select([], [client], [], 10)[1]
        if not ready:
            return "still waiting"
        if failed := client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(failed, "later")
        client.getpeername()
        return f"connected {talk(client)}"


def impatient(host, port):
    with socket.create_connection((host, port), timeout=1.5) as client:
        return f"connected {talk(client)}"


def by_asyncio(host, port):
    async def run():
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(WORDS)
        writer.write_eof()
        try:
            return f"connected {(await reader.read()).decode()}"
        finally:
            writer.close()

    return asyncio.run(run())


for case in sys.argv[1:]:
    case, at = case.split("=")
    host, port = at.rsplit(",", 1)
    for way in [blocking, polled, impatient, by_asyncio]:
        begun = time.monotonic()
        try:
            outcome = way(host, int(port))
        except OSError as error:
            outcome = name(error)
        print(f"{case} python {way.__name__}: {outcome}, {round(time.monotonic() - begun)} s")
