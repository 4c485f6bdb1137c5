"""A page of what 'orders' tells."""

import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Web(BaseHTTPRequestHandler):
    def do_GET(self):
        with urllib.request.urlopen("http://orders/", timeout=10) as answer:
            text = "page of " + answer.read().decode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())


ThreadingHTTPServer(("", 80), Web).serve_forever()
