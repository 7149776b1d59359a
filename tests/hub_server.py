"""A small Hugging Face hub on the loopback interface.

It speaks what `huggingface_hub` asks for when it downloads one file:
`HEAD /<repo>/resolve/<revision>/<file>` is answered by a redirect to another
host, as the real hub answers for large files, with the commit, the sha256 and
the size in headers; `GET` of that place gives the content, from any byte on.
No xet headers are sent, so the client stays with HTTP.
"""

import hashlib
import http.server
import re
import threading

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Use as a context manager; the attributes may be changed while it runs.

    Attributes:
        files: contents by `"<repo>/<file>"`.
        reported_sha256: sent instead of the true one, if not `None`.
        reported_size: sent instead of the true one, if not `None`.
        break_after: the next download is cut off after so many bytes.
        requests: `(method, path, Range header or None)` of all requests.
    """

    def __init__(self):
        self.files = {}
        self.reported_sha256 = None
        self.reported_size = None
        self.break_after = None
        self.requests = []
        # Two origins: the client reads the headers of a redirect only if it
        # leads elsewhere.
        self._servers = [
            http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
            for handler in (self._handler(_Hub), self._handler(_Storage))
        ]
        self.url, self.storage_url = (
            f"http://127.0.0.1:{server.server_port}" for server in self._servers
        )

    def _handler(self, base):
        return type(base.__name__, (base,), {"hub": self})

    def __enter__(self):
        for server in self._servers:
            threading.Thread(
                target=server.serve_forever, args=(0.05,), daemon=True
            ).start()
        return self

    def __exit__(self, *_):
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        self.hub.requests.append(
            (self.command, self.path, self.headers.get("Range"))
        )
        code, headers, body = self.respond()
        self.send_response(code)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.break_after is not None and code in (200, 206):
            body, self.hub.break_after = body[: self.hub.break_after], None
            self.close_connection = True
        self.wfile.write(body)


class _Hub(_Handler):
    def respond(self):
        match = re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", self.path)
        name = match and f"{match[1]}/{match[3]}"
        if name not in self.hub.files:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        content = self.hub.files[name]
        sha256 = hashlib.sha256(content).hexdigest()
        size = self.hub.reported_size
        headers = {
            "Location": f"{self.hub.storage_url}/{name}",
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{self.hub.reported_sha256 or sha256}"',
            "X-Linked-Size": len(content) if size is None else size,
        }
        return 302, headers, b""


class _Storage(_Handler):
    def respond(self):
        content = self.hub.files[self.path[1:]]
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not wanted:
            return 200, {}, content
        start, last = int(wanted[1]), len(content) - 1
        place = f"bytes {start}-{last}/{len(content)}"
        return 206, {"Content-Range": place}, content[start:]
