"""Tells the orders in the database, and passes on what it is asked of elsewhere."""

import json
import os
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2


class Orders(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/via/"):
            with urllib.request.urlopen("http://" + self.path[5:], timeout=10) as answer:
                return self.tell(answer.read().decode())
        with psycopg2.connect(host=os.environ["DATABASE_HOST"], dbname="shop", user="postgres") as database:
            cursor = database.cursor()
            cursor.execute("select what from orders order by what")
            told = {"orders": [what for (what,) in cursor], "region": os.environ.get("REGION")}
        self.tell(json.dumps(told))

    def tell(self, text):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())


ThreadingHTTPServer(("", 80), Orders).serve_forever()
