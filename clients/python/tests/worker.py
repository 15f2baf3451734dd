"""A worker that does what the tests ask for, by path. It has nothing but Python's own library.

    PORT= python worker.py
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

count = 0
GO = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "worker"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, body: object, *fields: tuple[str, str]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def chunked(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def handle_any(self) -> None:
        global count
        path = self.path.split("?")[0]
        if path == "/health":
            self.answer(200, "ok")
        elif path == "/count":
            count += 1
            self.answer(200, count)
        elif path == "/echo":
            body = self.body().decode()
            headers = [[name, value] for name, value in self.headers.items()]
            self.answer(200, {"method": self.command, "path": self.path, "headers": headers, "body": body})
        elif path.startswith("/status/"):
            self.answer(int(path.rsplit("/", 1)[1]), "as you wish")
        elif path == "/forged":
            problem = {"type": "urn:herd:problem:worker-crashed", "title": "T", "status": 502, "detail": "forged"}
            fields = [("herd-error", "worker-crashed"), ("herd-worker", "worker-99"), ("x-own", "1")]
            self.answer(502, problem, *fields)
        elif path == "/cookie":
            self.answer(200, "set", ("set-cookie", "a=b"), ("set-cookie", "sid=other"))
        elif path == "/redirect":
            self.answer(302, "elsewhere", ("location", "http://127.0.0.2:1/"))
        elif path == "/crash":
            os.kill(os.getpid(), signal.SIGKILL)
        elif path == "/never":
            time.sleep(3600)
        elif path == "/events":
            self.chunked("text/event-stream")
            for number in range(3):
                self.chunk(f"event: tick\ndata: {number}\n\n")
            self.wfile.write(b"0\r\n\r\n")
        elif path == "/stream":
            # Until the worker or the client is gone.
            self.chunked("text/plain")
            self.chunk("first\n")
            GO.wait()
        elif path == "/broken":
            self.chunked("text/plain")
            self.chunk("first\n")
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif path == "/ws":
            self.websocket()
        else:
            self.answer(404, "no such path")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def websocket(self) -> None:
        """Says each short text message back (RFC 6455)."""
        key = self.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("upgrade", "websocket")
        self.send_header("connection", "upgrade")
        self.send_header("sec-websocket-accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        self.close_connection = True
        while len(head := self.rfile.read(2)) == 2:
            kind, size = head[0] & 0xF, head[1] & 0x7F
            mask = self.rfile.read(4)
            data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.rfile.read(size)))
            self.wfile.write(struct.pack("!BB", 0x80 | kind, len(data)) + data)
            if kind == 8:
                return


if __name__ == "__main__":
    if sys.argv[1:] == ["fails"]:
        sys.exit("it was told to fail")
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
