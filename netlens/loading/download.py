"""Fetching one file: whole, checked and in its place, or not at all, with the ways around it said. Standard library only."""

from __future__ import annotations

import hashlib
import http.client
import queue
import shutil
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, getproxies, proxy_bypass, urlopen

from netlens.errors import FileProblem
from netlens.loading.words import cause, one_line

TIMEOUT = 10.0  # seconds for each address of the host, and for a pause in the middle of the file
PATIENCE = 20.0  # seconds until the host has answered: looking up its name and trying all its addresses have no end of their own
PIECE = 1 << 20  # bytes
PROXY = "set HTTPS_PROXY right if a proxy is needed, or "
NETWORK_ERRORS = (OSError, http.client.HTTPException, ValueError)  # ValueError: an unknown kind of URL, a chunk of no size

Progress = Callable[[int, int | None], None]  # bytes that are there, bytes in all where the host says so


@dataclass(frozen=True, slots=True)
class Download:
    """A file to be fetched."""

    url: str
    path: Path
    sha256: str = ""  # its first digits

    def run(self, progress: Progress) -> None:
        """Fetch beside the file's place, and move it there when it is whole; nothing else stays behind, whatever happens.

        Raises:
            FileProblem: no network, another answer, another file, or no room for it.
        """
        partial = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}.partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("xb") as content:  # before the host is asked: without permission there is nothing to fetch
                self._receive(content.write, progress)
            partial.replace(self.path)
        except OSError as error:
            raise self._not_written(error) from error
        finally:
            with suppress(OSError):
                partial.unlink()

    def _receive(self, write: Callable[[bytes], object], progress: Progress) -> None:
        done, sha256 = 0, hashlib.sha256()
        with self._answer() as response:
            total = _length(response)
            free = shutil.disk_usage(self.path.parent).free
            if total is not None and total > free:
                raise OSError(f"it has {total:,} bytes, and {free:,} are free")
            for piece in self._pieces(response):
                write(piece)
                sha256.update(piece)
                done += len(piece)
                progress(done, total)
        if total is not None and done != total:
            raise self._not_fetched(f"only {done:,} of {total:,} bytes came")
        digits = sha256.hexdigest()[: len(self.sha256)]
        if digits != self.sha256:
            raise self._not_fetched(f"what came is another file, {done:,} bytes with a sha256 of {digits}...")

    def _answer(self) -> Any:
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put(urlopen(Request(self.url, headers={"User-Agent": "netlens"}), timeout=TIMEOUT))
            except Exception as error:
                answers.put(error)

        threading.Thread(target=ask, daemon=True).start()
        try:
            answer = answers.get(timeout=PATIENCE)
        except queue.Empty as error:
            raise self._not_fetched(*_why(TimeoutError())) from error
        if isinstance(answer, Exception):
            raise self._not_fetched(*_why(answer)) from answer
        return answer

    def _pieces(self, response: Any) -> Iterator[bytes]:
        try:
            while piece := response.read(PIECE):
                yield piece
        except NETWORK_ERRORS as error:
            raise self._not_fetched(*_why(error)) from error

    def _not_fetched(self, why: str, first: str = "") -> FileProblem:
        ways = f"{first}fetch {self.url} on a machine with a network, then put it into {one_line(self.path.parent)}"
        message = f"{self.path.name} cannot be fetched from {_host(self.url)}: {why}"
        return FileProblem(message, hint=f"{ways}, or name it: --checkpoint FILE")

    def _not_written(self, error: OSError) -> FileProblem:
        message = f"{self.path.name} cannot be written into {one_line(self.path.parent)}: {error.strerror or error}"
        ways = "make room or mend the permissions, or choose another cache: TORCH_HOME=FOLDER"
        return FileProblem(message, hint=f"{ways}; a file from {self.url} can also be named: --checkpoint FILE")


def _length(response: Any) -> int | None:
    length = str(response.headers.get("Content-Length", ""))
    return int(length) if length.isdecimal() else None


def _why(error: BaseException) -> tuple[str, str]:
    """Say what happened, and what else than another machine may help."""
    if type(error) is URLError and isinstance(error.reason, Exception):
        return _why(error.reason)
    if isinstance(error, HTTPError):
        return one_line(f"it answers {error.code} {error.reason}"), ""
    if isinstance(error, socket.gaierror):
        return "its name is not known here, so there is no network or no DNS", PROXY
    if isinstance(error, TimeoutError):
        return "it does not answer", PROXY
    if isinstance(error, ssl.SSLError):
        return f"no secure connection, {cause(error)}", "set SSL_CERT_FILE to the certificates of your network, or "
    if isinstance(error, OSError):
        return one_line(error.strerror or error), ""  # "Connection refused", "Tunnel connection failed: 407 Proxy Authentication Required"
    return cause(error), ""


def _host(url: str) -> str:
    """Return "download.pytorch.org", with the proxy on the way there; never the name and the password of either."""
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if not parts.hostname or not proxy or proxy_bypass(parts.hostname):
        return parts.netloc.rpartition("@")[2] or one_line(url)
    return f"{parts.hostname} through the proxy {one_line(proxy.rpartition('//')[2].rpartition('@')[2])}"
