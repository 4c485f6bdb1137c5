"""The same answer by way of gunicorn (WSGI) and uvicorn (ASGI)."""

import json

NAME = "first"


def wsgi(environ, start):
    peer = "%s:%s" % (environ["REMOTE_ADDR"], environ["REMOTE_PORT"])
    body = json.dumps({"name": "gunicorn", "peer": peer}).encode()
    start("200 OK", [("content-length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    body = json.dumps({
        "name": NAME,
        "peer": "%s:%d" % tuple(scope["client"]),
        "local": "%s:%d" % tuple(scope["server"]),
    }).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
