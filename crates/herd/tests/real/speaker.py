# A worker that does what it is told: POST /out and /err write the body as it is to standard output and error, POST
# /die writes it to standard error and ends with it, GET /hold does not answer, and GET /work/SECONDS/MIB computes for a
# while and keeps that much memory.
import http.server
import os
import sys
import threading
import time

kept = []


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/hold":
            threading.Event().wait()
        if self.path.startswith("/work/"):
            _, _, seconds, mebibytes = self.path.split("/")
            kept.append(b"x" * (int(mebibytes) << 20))
            end = time.process_time() + float(seconds)
            while time.process_time() < end:
                pass
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
