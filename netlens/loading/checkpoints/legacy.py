"""What torch.save wrote before 1.6 (five pickles, then the storages one after another) and before 0.2 (a tar of three files)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from netlens.loading.checkpoints.files import OnDisk, Sliced
from netlens.loading.checkpoints.machine import Damaged, Patience, Truncated
from netlens.loading.checkpoints.pickles import Pickled, Reader, read_pickle
from netlens.loading.checkpoints.rebuild import NotAsExpected, dimensions
from netlens.loading.checkpoints.stubs import Blob, Bytes, Global, Storage, Tensor

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
MAGIC = b"\x8a\x0a" + MAGIC_NUMBER.to_bytes(10, "little")  # LONG1; in front of it the protocol, and since 4 a frame
FEW = 10_000  # opcodes that the four small pickles need at most
MOST_KEYS = 400_000  # opcodes of the list of storages
MOST_STORAGES = 20_000  # in a tar


@dataclass(slots=True)
class Legacy:
    """One file of the five pickles."""

    pickled: Pickled
    big_endian: bool
    end: int  # behind the last storage


def read_legacy(code: Bytes, bodies: Sliced, start: int, end: int, reader: Reader | None = None) -> Legacy:
    """Read the five pickles and find the storages behind them; `bodies` are the same bytes as `code`, for reading here and there.

    Raises:
        Damaged, Truncated: it is not complete.
    """
    reader = Reader(nested_storage) if reader is None else reader
    magic = read_pickle(code, start, end, reader, FEW)
    version = read_pickle(code, magic.end, end, reader, FEW)
    system = read_pickle(code, version.end, end, reader, FEW)
    if magic.value != MAGIC_NUMBER or version.value != 1001 or not isinstance(system.value, dict):
        raise Damaged("it begins like a file of torch.save, and does not go on like one")
    main = read_pickle(code, system.end, end, reader)
    big_endian = system.value.get("little_endian") is False
    if not main.complete:
        return Legacy(main, big_endian, end)
    keys = read_pickle(code, main.end, end, reader, MOST_KEYS)
    stop = _place(bodies, keys, end, big_endian)
    main.oddities = list(reader.oddities)
    return Legacy(main, big_endian, stop)


def _place(bodies: Sliced, keys: Pickled, end: int, big_endian: bool) -> int:
    """Find every storage: eight bytes with the number of elements, then the elements."""
    position = keys.end
    for key in keys.value if isinstance(keys.value, list) else ():
        storage = keys.storages.get(key if isinstance(key, str) else str(key)[:200] if isinstance(key, int) else "")
        head = bodies[position : position + 8]
        if storage is None or not storage.itemsize:
            raise Damaged("its list of storages does not agree with its tensors")
        if len(head) < 8:
            raise Truncated(f"storage {storage.key} is missing")
        count = struct.unpack(">q" if big_endian else "<q", head)[0]
        if count != storage.count:
            raise Damaged(f"storage {storage.key} has {count:,} elements in the file, not {storage.count:,}")
        if position + 8 + storage.size > end:
            raise Truncated(f"storage {storage.key} needs {position + 8 + storage.size - end:,} more bytes")
        if storage.place >= 0:
            raise Damaged(f"storage {storage.key} is listed twice")
        storage.place = position + 8
        position += 8 + storage.size
    for storage in keys.storages.values():
        if storage.place < 0 and not storage.problem:
            storage.problem = f"storage {storage.key} is missing in the file"
    return position


def nested_storage(content: bytes | Blob, globals_: dict[str, Global]) -> object:
    """Read the storage that a plain pickle carries inside, as bytes that torch.save wrote; None where it is none.

    What it names goes to `globals_`: unpickling the outer pickle unpickles this one, too.
    """
    code, start = (content, 0) if isinstance(content, bytes) else (content.source, content.place)
    end = start + (len(content) if isinstance(content, bytes) else content.size)
    reader = Reader()
    reader.globals = globals_
    try:
        found = [read_pickle(code, start, end, reader, 200)]
        for _ in range(3):
            found.append(read_pickle(code, found[-1].end, end, reader, 200))
    except Damaged:
        return None
    return found[3].value if isinstance(found[3].value, Storage) else None


@dataclass(frozen=True, slots=True)
class Tarred:
    """A regular member of a tar file."""

    name: str
    start: int
    end: int


def tar_members(code: Sliced, size: int, most: int = 64) -> list[Tarred]:
    """Return the first regular members of an uncompressed tar file."""
    found: list[Tarred] = []
    position = 0
    while position + 512 <= size and len(found) < most:
        head = code[position : position + 512]
        if head[257:262] != b"ustar":
            break
        field = head[124:136].strip(b" \0")
        length = int(field, 8) if field and all(48 <= digit < 56 for digit in field) else 0
        if head[156:157] in (b"0", b"\0"):
            name = head[:100].split(b"\0", 1)[0].decode("utf-8", "replace")
            found.append(Tarred(name, position + 512, min(size, position + 512 + length)))
        position += 512 + (length + 511) // 512 * 512
    return found


def read_tar(file: OnDisk) -> Pickled:
    """Read the tar of `storages`, `tensors` and `pickle`."""
    members = {member.name.removeprefix("./"): member for member in tar_members(file, file.size)}
    if not {"storages", "tensors", "pickle"} <= members.keys():
        raise Damaged("it lacks one of the members storages, tensors and pickle")
    code, reader = file.mapped(), TarReader()
    _tar_storages(code, members["storages"], reader)
    _tar_tensors(code, members["tensors"], reader)
    return read_pickle(code, members["pickle"].start, members["pickle"].end, reader)


class TarReader(Reader):
    """Knows the tensors by number, because the last of the three files only refers to them."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: dict[str, Tensor] = {}

    def persistent(self, reference: object) -> object:
        """Describe the tensor of that number."""
        if isinstance(reference, str | int) and (tensor := self.tensors.get(str(reference)[:100])):
            return tensor
        return super().persistent(reference)


def _count(pickled: Pickled) -> int:
    if type(pickled.value) is not int or not 0 <= pickled.value <= MOST_STORAGES:
        raise Damaged("a number of tensors makes no sense")
    return pickled.value


def _tar_storages(code: Bytes, member: Tarred, reader: TarReader) -> None:
    pickled = read_pickle(code, member.start, member.end, reader, FEW)
    patience = Patience(0.7)
    for _ in range(_count(pickled)):
        patience.check()
        pickled = read_pickle(code, pickled.end, member.end, reader, FEW)
        if not isinstance(pickled.value, tuple) or len(pickled.value) != 3 or not isinstance(pickled.value[2], Global):
            raise Damaged("a storage's description makes no sense")
        key, location, cls = pickled.value
        count = struct.unpack("<q", code[pickled.end : pickled.end + 8].ljust(8, b"\xff"))[0]
        storage = reader.storage(cls, key, location, count)
        if storage is None or not storage.itemsize or pickled.end + 8 + storage.size > member.end:
            raise Truncated("a storage is not complete")
        storage.place = pickled.end + 8
        pickled.end = storage.place + storage.size


def _tar_tensors(code: Bytes, member: Tarred, reader: TarReader) -> None:
    pickled = read_pickle(code, member.start, member.end, reader, FEW)
    patience = Patience(0.7)
    for _ in range(_count(pickled)):
        patience.check()
        pickled = read_pickle(code, pickled.end, member.end, reader, FEW)
        if not isinstance(pickled.value, tuple) or len(pickled.value) != 3:
            raise Damaged("a tensor's description makes no sense")
        key, storage_key, _ = pickled.value
        axes, _ = struct.unpack("<ii", code[pickled.end : pickled.end + 8].ljust(8, b"\xff"))
        body = code[pickled.end + 8 : pickled.end + 16 + 16 * axes] if 0 <= axes <= 64 else b""
        storage = reader.storages.get(str(storage_key)) if isinstance(storage_key, str | int) else None
        if len(body) != 16 * axes + 8 or storage is None or not isinstance(key, str | int):
            raise Damaged("a tensor is not complete")
        numbers = struct.unpack(f"<{2 * axes + 1}q", body)
        try:
            shape, stride = dimensions(numbers[:axes]), dimensions(numbers[axes:-1])
        except NotAsExpected as error:
            raise Damaged("a tensor's size makes no sense") from error
        reader.tensors[str(key)] = Tensor(shape, stride, storage.dtype, numbers[-1], storage)
        pickled.end += 16 + 16 * axes
