# A worker that says what it is told to: POST /out and /err write the body as it is to standard output and error, GET
# /hold does not answer, POST /die writes the body to standard error and ends with it.
import http.server
import os
import sys
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/hold":
            threading.Event().wait()
        self.answer()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        stream = sys.stdout.buffer if self.path == "/out" else sys.stderr.buffer
        stream.write(body)
        stream.flush()
        if self.path == "/die":
            os._exit(3)
        self.answer()

    def answer(self):
        self.send_response(200)
        self.send_header("content-length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
