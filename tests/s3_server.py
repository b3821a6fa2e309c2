"""An S3 server for tests: as much of the protocol as pyarrow speaks, on loopback.

    python tests/s3_server.py [PORT FOLDER [ADDRESS]]

prints its port and serves until its standard input ends, on loopback or at an address of this
machine. Objects are in memory, or in a folder, where the next server of it finds them.

Objects are at /BUCKET/KEY; nothing is signed or checked. What a test asks of the server itself:

    PUT /?fault=KIND&count=N   the next N requests fail: `slow_down` (503), `broken` (the body of a
                               GET ends half way), `denied` (403)
    GET /?requests             how many requests it has had, as text
"""

import hashlib
import re
import sys
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit
from uuid import uuid4
from xml.sax.saxutils import escape

XML = '<?xml version="1.0" encoding="UTF-8"?>'


class Objects:
    """What the server holds: by bucket and key the bytes, or the file that has them, and a time."""

    def __init__(self, folder: Path | None = None) -> None:
        self.lock = threading.Lock()
        self.buckets: dict[str, dict[str, tuple[bytes | Path, float]]] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.fault, self.count, self.requests = "", 0, 0
        self.folder = folder
        for bucket in folder.iterdir() if folder else ():
            self.buckets[unquote(bucket.name)] = {}
        for file in sorted(folder.glob("*/*")) if folder else ():
            held = self.buckets.setdefault(unquote(file.parent.name), {})
            if file.name != ".part":
                held[unquote(file.name)] = (file, file.stat().st_mtime)

    def put(self, bucket: str, key: str, data: bytes) -> None:
        if self.folder:
            file = self.folder / quote(bucket, safe="") / quote(key, safe="")
            file.parent.mkdir(exist_ok=True)
            with self.lock:
                part = file.with_name(".part")
                part.write_bytes(data)
                part.replace(file)
        self.buckets[bucket][key] = (file if self.folder else data, time.time())

    def delete(self, bucket: str, key: str) -> None:
        self.buckets[bucket].pop(key, None)
        if self.folder:
            (self.folder / quote(bucket, safe="") / quote(key, safe="")).unlink(missing_ok=True)

    def take_fault(self, command: str) -> str:
        """Return the fault this request suffers, "" for none."""
        with self.lock:
            self.requests += 1
            if not self.count or (self.fault == "broken" and command != "GET"):
                return ""
            self.count -= 1
            return self.fault


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece: a second one would wait for the first to be seen
    objects: Objects

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def handle_expect_100(self) -> bool:
        """Ask for the body at once."""
        go_on = super().handle_expect_100()
        self.wfile.flush()
        return go_on

    def handle_one(self) -> None:
        """Answer a request of any kind."""
        url = urlsplit(self.path)
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(url.query, True).items()}
        body = self._body()
        if not bucket:
            self._control(query)
            return
        self.fault = self.objects.take_fault(self.command)
        if self.fault == "slow_down":
            self._error(503, "SlowDown")
        elif self.fault == "denied":
            self._error(403, "AccessDenied")
        elif not key:
            self._bucket(bucket, query)
        elif bucket not in self.objects.buckets:
            self._error(404, "NoSuchBucket")
        elif "uploads" in query or "uploadId" in query:
            self._multipart(bucket, key, query, body)
        else:
            self._object(bucket, key, body)

    do_GET = handle_one  # noqa: N815 (the names http.server looks for)
    do_HEAD = handle_one  # noqa: N815
    do_PUT = handle_one  # noqa: N815
    do_POST = handle_one  # noqa: N815
    do_DELETE = handle_one  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        else:
            data = self._chunks()
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return data
        parts, start = [], 0  # chunks inside the body, each after a line "SIZE;..."
        while start < len(data):
            end = data.index(b"\r\n", start)
            if not (size := int(data[start:end].split(b";")[0], 16)):
                break
            parts.append(data[end + 2 : end + 2 + size])
            start = end + size + 4
        return b"".join(parts)

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def _control(self, query: dict[str, str]) -> None:
        if "fault" in query:
            with self.objects.lock:
                self.objects.fault, self.objects.count = query["fault"], int(query["count"])
        self._reply(200, str(self.objects.requests).encode())

    def _bucket(self, bucket: str, query: dict[str, str]) -> None:
        if self.command == "PUT":
            self.objects.buckets.setdefault(bucket, {})
            self._reply(200)
        elif self.command == "DELETE":
            self.objects.buckets.pop(bucket, None)
            self._reply(204)
        elif bucket not in self.objects.buckets:
            self._error(404, "NoSuchBucket")
        elif self.command == "GET":
            self._list(bucket, query)
        else:
            self._reply(200)

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after, most = query.get("continuation-token", ""), int(query.get("max-keys", "1000"))
        found: dict[str, tuple[bytes | Path, float] | None] = {}
        for key, value in sorted(self.objects.buckets[bucket].items()):
            if key.startswith(prefix):
                head, mark, _ = key.removeprefix(prefix).partition(delimiter or "\0")
                found |= {prefix + head + mark: None} if mark else {key: value}
        names = [name for name in sorted(found) if name > after]
        shown, more = names[:most], names[most:]
        parts = [f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><MaxKeys>{most}</MaxKeys>"]
        parts.append(f"<KeyCount>{len(shown)}</KeyCount><IsTruncated>{str(bool(more)).lower()}")
        parts.append("</IsTruncated>")
        if more:
            parts.append(f"<NextContinuationToken>{escape(shown[-1])}</NextContinuationToken>")
        for name in shown:
            if (value := found[name]) is None:
                parts.append(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>")
            else:
                when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(value[1]))
                parts.append(
                    f"<Contents><Key>{escape(name)}</Key><LastModified>{when}</LastModified>"
                    f"<Size>{_size(value[0])}</Size></Contents>"
                )
        self._reply(200, f"{XML}<ListBucketResult>{''.join(parts)}</ListBucketResult>".encode())

    def _object(self, bucket: str, key: str, body: bytes) -> None:
        held = self.objects.buckets[bucket]
        if self.command == "PUT":
            self.objects.put(bucket, key, body)
            self._reply(200, headers={"ETag": _etag(body)})
        elif self.command == "DELETE":
            self.objects.delete(bucket, key)
            self._reply(204)
        elif key not in held:
            self._error(404, "NoSuchKey")
        else:
            data, when = _bytes(held[key][0]), held[key][1]
            headers = {"ETag": _etag(data), "Last-Modified": formatdate(when, usegmt=True)}
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if wanted is None:
                self._reply(200, data, headers)
                return
            first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            self._reply(206, data[first : last + 1], headers)

    def _multipart(self, bucket: str, key: str, query: dict[str, str], body: bytes) -> None:
        uploads = self.objects.uploads
        if "uploads" in query:
            with self.objects.lock:
                upload = uuid4().hex
                uploads[upload] = {}
            inside = f"<UploadId>{upload}</UploadId>"
            tag = "InitiateMultipartUploadResult"
        elif self.command == "PUT":
            uploads[query["uploadId"]][int(query["partNumber"])] = body
            self._reply(200, headers={"ETag": _etag(body)})
            return
        elif self.command == "DELETE":
            uploads.pop(query["uploadId"], None)
            self._reply(204)
            return
        else:
            held = uploads.pop(query["uploadId"])
            data = b"".join(part for _, part in sorted(held.items()))
            self.objects.put(bucket, key, data)
            inside, tag = f"<ETag>{escape(_etag(data))}</ETag>", "CompleteMultipartUploadResult"
        names = f"<Bucket>{bucket}</Bucket><Key>{escape(key)}</Key>"
        self._reply(200, f"{XML}<{tag}>{names}{inside}</{tag}>".encode())

    def _error(self, status: int, code: str) -> None:
        text = f"{XML}<Error><Code>{code}</Code><Message>{code}</Message></Error>"
        self._reply(status, text.encode())

    def _reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if getattr(self, "fault", "") == "broken":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        else:
            self.wfile.write(body)


def _size(held: bytes | Path) -> int:
    return held.stat().st_size if isinstance(held, Path) else len(held)


def _bytes(held: bytes | Path) -> bytes:
    return held.read_bytes() if isinstance(held, Path) else held


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def main() -> None:
    """Serve until standard input ends."""
    port, folder = (int(sys.argv[1]), Path(sys.argv[2])) if sys.argv[1:] else (0, None)
    Handler.objects = Objects(folder)
    server = ThreadingHTTPServer((sys.argv[3] if sys.argv[3:] else "127.0.0.1", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
