"""A small server that speaks S3: one bucket, in memory, as far as s3fs and DVC ask."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest
import s3fs

BUCKET = "lake"


class Bucket(BaseHTTPRequestHandler):
    """One bucket: put, get, head, list and delete objects."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]

    def do_PUT(self) -> None:
        data = self._body()
        self.objects[self._key()] = data
        self._answer(200, headers={"ETag": f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'})

    def do_DELETE(self) -> None:
        self.objects.pop(self._key(), None)
        self._answer(204)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        query, key = parse_qs(urlsplit(self.path).query, keep_blank_values=True), self._key()
        if "list-type" in query:
            self._answer(200, self._listing(query.get("prefix", [""])[0], query.get("delimiter", [""])[0]))
        elif not key:
            self._answer(200)
        elif key in self.objects:
            data = self.objects[key]
            span = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
            part = data[int(span[0]) : int(span[2] or len(data)) + 1] if span[0] else data
            self._answer(
                206 if span[0] else 200, part, {"ETag": '"x"', "Last-Modified": "Mon, 24 Nov 2025 12:00:00 GMT"}
            )
        else:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def _listing(self, prefix: str, delimiter: str) -> bytes:
        keys = sorted(key for key in self.objects if key.startswith(prefix))
        folders = sorted(
            {
                prefix + key[len(prefix) :].partition("/")[0] + "/"
                for key in keys
                if delimiter and "/" in key[len(prefix) :]
            }
        )
        files = [key for key in keys if not delimiter or "/" not in key[len(prefix) :]]
        contents = "".join(
            f'<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key])}</Size><ETag>"x"</ETag>'
            "<LastModified>2025-11-24T12:00:00.000Z</LastModified></Contents>"
            for key in files
        )
        common = "".join(f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in folders)
        return (
            f"<ListBucketResult><Name>{BUCKET}</Name><KeyCount>{len(files) + len(folders)}</KeyCount>"
            f"<IsTruncated>false</IsTruncated>"
            f"{contents}{common}</ListBucketResult>"
        ).encode()

    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}").lstrip("/")

    def _body(self) -> bytes:
        if (
            "aws-chunked" not in self.headers.get("Content-Encoding", "")
            and self.headers.get("Transfer-Encoding") != "chunked"
        ):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            continue
        return data

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def small_s3() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Endpoint of an empty bucket on this machine, and its objects; credentials and endpoint stand in the environment
    as production gives them."""
    objects: dict[str, bytes] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneBucket", (Bucket,), {"objects": objects}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            yield endpoint, objects
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
            server.shutdown()
            server.server_close()
