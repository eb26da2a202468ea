"""A zip file's directory, read strictly: what torch would read as a tensor must be there once, as plain bytes of the right size.

Not `zipfile`: that one forgives what torch does not (bytes in front of the archive), and says nothing about records that overlap.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple

from netlens.loading.checkpoints.files import Sliced
from netlens.loading.checkpoints.machine import Damaged, Truncated
from netlens.loading.checkpoints.stubs import Storage

END, END64, LOCATOR64, ENTRY, LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
MOST_MEMBERS = 120_000
MOST_INFLATED = 64 << 20  # bytes of one compressed member
NONE32, NONE16 = 0xFFFFFFFF, 0xFFFF
SIZES = struct.Struct("<HH").unpack_from
FIELDS = struct.Struct("<4s4xHH8xIIHHH8xI").unpack_from  # magic, flags, method, sizes, lengths of three texts, local header


class Member(NamedTuple):
    """One record of the archive."""

    name: str
    compressed: int
    size: int
    method: int  # 0: stored as it is, 8: deflated
    header: int  # where its local header starts, in the whole file
    encrypted: bool


@dataclass(slots=True)
class Zip:
    """The directory of an archive that lies in `code` between `start` and `end`."""

    code: Sliced
    start: int
    end: int
    members: dict[str, Member]
    twice: frozenset[str]  # lower-case names that several records have: torch's reader does not tell upper from lower case
    first: str  # the name of the first record: torch takes the archive's root from it

    @property
    def root(self) -> str:
        """The folder that holds everything, with its slash: "archive/"; "" where there is none."""
        head, slash, _ = self.first.partition("/")
        return head + slash if slash else ""

    def place(self, member: Member) -> int:
        """Return where a member's bytes start.

        Raises:
            Damaged: its local header is not where the directory says, or is another record's.
        """
        at, name = member.header, member.name.encode("utf-8", "surrogateescape")
        header = self.code[at : at + 30 + len(name)]
        if len(header) < 30 or header[:4] != LOCAL or at < self.start:
            raise Damaged(f"the record {member.name} is not where the directory says")
        name_size, extra_size = SIZES(header, 26)
        place: int = at + 30 + name_size + extra_size
        if name_size != len(name) or header[30:] != name:
            raise Damaged(f"the directory and the record disagree about the name {member.name}")
        if place + member.compressed > self.end:
            raise Truncated(f"the record {member.name} reaches beyond the end of the file")
        return place

    def span(self, name: str) -> tuple[Sliced, int, int]:
        """Return where a member's content lies, inflated where it is compressed: bytes, start and end."""
        member = self.members[name]
        if member.encrypted:
            raise Damaged(f"the record {name} is encrypted")
        place = self.place(member)
        if member.method == 0:
            if member.size != member.compressed:
                raise Damaged(f"the record {name} has two sizes")
            return self.code, place, place + member.size
        if member.method != 8:
            raise Damaged(f"the record {name} is compressed in a way that torch does not read")
        return self._inflated(member, place), 0, member.size

    def _inflated(self, member: Member, place: int) -> bytes:
        if member.size > MOST_INFLATED or member.compressed > MOST_INFLATED:
            raise Damaged(f"the compressed record {member.name} is larger than netlens unpacks ({MOST_INFLATED >> 20} MiB)")
        try:
            content = zlib.decompressobj(-15).decompress(self.code[place : place + member.compressed], member.size + 1)
        except zlib.error as error:
            raise Damaged(f"the record {member.name} does not unpack") from error
        if len(content) != member.size:
            raise Damaged(f"the record {member.name} does not have the size that the directory gives")
        return content

    def read(self, name: str, most: int = MOST_INFLATED) -> bytes:
        """Return a small member's content."""
        code, start, end = self.span(name)
        if end - start > most:
            raise Damaged(f"the record {name} is larger than it can be")
        return code[start:end]


def open_zip(code: Sliced, start: int, end: int) -> Zip:
    """Read the directory.

    Raises:
        Truncated: there is none.
        Damaged: it breaks the rules.
    """
    count, size, at = _end_record(code, start, end)
    if count > MOST_MEMBERS or size > end - start:
        raise Damaged(f"its directory lists {count:,} records")
    directory = code[start + at : start + at + size]
    members: dict[str, Member] = {}
    lower: set[str] = set()
    twice: set[str] = set()
    first, position = "", 0
    for index in range(count):
        member, position = _entry(directory, position, start)
        first = first if index else member.name
        members.setdefault(member.name, member)
        folded = member.name.lower()
        (twice if folded in lower else lower).add(folded)
    return Zip(code, start, end, members, frozenset(twice), first)


def _end_record(code: Sliced, start: int, end: int) -> tuple[int, int, int]:
    """Return the number of entries, and the size and the place of the directory, relative to `start`."""
    tail_start = max(start, end - 22 - NONE16)
    tail = code[tail_start:end]
    found = tail.rfind(END)
    if found < 0 or found + 22 > len(tail):
        raise Truncated("the directory at its end is missing")
    count, size, at = struct.unpack("<HII", tail[found + 10 : found + 20])
    if count == NONE16 or NONE32 in (size, at):
        locator = tail_start + found - 20
        if locator >= start and code[locator : locator + 4] == LOCATOR64:
            place = start + struct.unpack("<Q", code[locator + 8 : locator + 16])[0]
            record = code[place : place + 56] if place + 56 <= end else b""
            if len(record) < 56 or record[:4] != END64:
                raise Damaged("its 64-bit directory is not where it should be")
            count, size, at = struct.unpack("<QQQ", record[32:56])
    if start + at + size > end:
        raise Damaged("its directory is not where it should be: bytes are missing, or stand in front of the archive")
    return count, size, at


def _entry(directory: bytes, position: int, start: int) -> tuple[Member, int]:
    """Read one entry; return it and the position behind it."""
    if position + 46 > len(directory):
        raise Damaged("its directory is damaged")
    magic, flags, method, compressed, size, name_size, extra_size, comment_size, header = FIELDS(directory, position)
    if magic != ENTRY:
        raise Damaged("its directory is damaged")
    name_end = position + 46 + name_size
    if NONE32 in (size, compressed, header):
        size, compressed, header = _wide(directory[name_end : name_end + extra_size], (size, compressed, header))
    name = directory[position + 46 : name_end].decode("utf-8", "surrogateescape")
    return Member(name, compressed, size, method, start + header, bool(flags & 1)), name_end + extra_size + comment_size


def _wide(extra: bytes, values: tuple[int, int, int]) -> tuple[int, int, int]:
    """Take the 64-bit values from an entry's extra field: only those that did not fit are there, in this order."""
    position = 0
    while position + 4 <= len(extra):
        tag, size = struct.unpack("<HH", extra[position : position + 4])
        if tag == 1:
            numbers = iter(struct.unpack(f"<{size // 8}Q", extra[position + 4 : position + 4 + size // 8 * 8]))
            found = [next(numbers, -1) if value == NONE32 else value for value in values]
            if -1 not in found:
                return found[0], found[1], found[2]
            break
        position += 4 + size
    raise Damaged("its directory lacks a 64-bit size")


def place_storages(archive: Zip, folder: str, storages: dict[str, Storage]) -> list[str]:
    """Find every storage's bytes, and check them; return sentences about what is odd."""
    spans: list[tuple[int, int, Storage]] = []
    deflated = 0
    for storage in storages.values():
        member = archive.members.get(folder + storage.key)
        storage.problem = storage.problem or _problem(archive, member, folder + storage.key, storage)
        if member is None or storage.problem:
            continue
        if member.method:
            deflated += 1
            continue
        try:
            place = archive.place(member)
        except Damaged as error:
            storage.problem = str(error)
            continue
        storage.place = place
        spans.append((place, place + member.size, storage))
    _mark_overlaps(spans)
    odd = [f"compressed storages ({deflated:,}): torch can load them, but not map them into memory"] if deflated else []
    return odd + sorted({storage.problem for storage in storages.values() if storage.problem})[:5]


def _problem(archive: Zip, member: Member | None, name: str, storage: Storage) -> str:
    """Say why a storage cannot be read."""
    if member is None and not storage.size:
        return ""
    if member is None:
        return f"storage {storage.key} is missing in the file"
    if name.lower() in archive.twice:
        return f"storage {storage.key} is in the file twice"
    if member.encrypted or member.method not in (0, 8):
        return f"storage {storage.key} is encrypted, or compressed in a way that torch does not read"
    if storage.itemsize and member.size != storage.size:
        return f"storage {storage.key} has {member.size:,} bytes in the file, not {storage.size:,}"
    if not member.method and member.compressed != member.size:
        return f"storage {storage.key} has two sizes in the file's directory"
    return ""


def _mark_overlaps(spans: list[tuple[int, int, Storage]]) -> None:
    """Storages that lie on one another are a trick: one of them shows bytes of the other."""
    spans.sort(key=lambda span: span[:2])
    reach, owner = 0, None
    for start, stop, storage in spans:
        if start < reach and stop > start and owner is not None:
            storage.problem = owner.problem = f"storages {owner.key} and {storage.key} overlap in the file"
            storage.place = owner.place = -1
        if stop > reach:
            reach, owner = stop, storage
