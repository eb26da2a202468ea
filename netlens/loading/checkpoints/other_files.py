"""Files that people take for checkpoints, and what to do with each."""

from __future__ import annotations

import re
from pathlib import Path

from netlens.errors import FileProblem
from netlens.loading.words import listed, one_line

CONVERT = "netlens reads PyTorch's formats: convert it, or look for the PyTorch file of the same model"
AGAIN = "get the file again, and compare its size with the source's"

MAGICS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras, or a data set)", CONVERT),
    (0, b"GGUF", "a GGUF file (llama.cpp)", CONVERT),
    (0, b"ggjt", "a GGML file (llama.cpp)", CONVERT),
    (0, b"lmgg", "a GGML file (llama.cpp)", CONVERT),
    (4, b"TFL3", "a TensorFlow Lite model", CONVERT),
    (4, b"ET12", "an ExecuTorch program", "use the .pt2 file that it was made from"),
    (0, b"\x93NUMPY", "a numpy array (.npy)", "netlens reads checkpoints; load it with numpy.load(..., allow_pickle=False)"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG picture", "as an input, give it with --image"),
    (0, b"\xff\xd8\xff", "a JPEG picture", "as an input, give it with --image"),
    (0, b"GIF8", "a GIF picture", "name the checkpoint's file"),
    (8, b"WEBP", "a WebP picture", "as an input, give it with --image"),
    (0, b"%PDF", "a PDF document", "name the checkpoint's file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first (7z x), then name the checkpoint inside"),
    (0, b"Rar!\x1a\x07", "a RAR archive", "unpack it first (unrar x), then name the checkpoint inside"),
    (0, b"BZh", "a bzip2 file", "unpack it first (bunzip2, or tar xf), then name the checkpoint inside"),
    (0, b"\xfd7zXZ\x00", "an xz file", "unpack it first (unxz, or tar xf), then name the checkpoint inside"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file", "unpack it first (unzstd), then name the checkpoint inside"),
    (0, b"\x7fELF", "a program or a library of native code (ELF)", "netlens never runs native code: name the checkpoint's file"),
    (0, b"MZ", "a Windows program or library", "netlens never runs native code: name the checkpoint's file"),
    (0, b"SQLite format 3\x00", "an SQLite database", "name the checkpoint's file"),
    (0, b"ARROW1", "an Arrow file", "name the checkpoint's file"),
    (0, b"PAR1", "a Parquet file", "name the checkpoint's file"),
    (0, b"\x0a\x0bencoder.", "a TensorFlow checkpoint", CONVERT),
    (0, b"bplist", "a property list (Core ML)", CONVERT),
)

LFS = b"version https://git-lfs.github.com/spec/"
ONNX = re.compile(rb"^\x08[\x01-\x14](\x12.{1,60}|\x1a|\x3a|\x42)", re.DOTALL)
MARKUP = re.compile(rb"^\s*<(!doctype|html|head|body|\?xml|[a-z][\w:-]*[\s>])", re.IGNORECASE)
YAML = re.compile(r"^(---\s|#|[\w.-]+:(\s|$))")


def by_magic(path: Path, head: bytes, size: int) -> FileProblem | None:
    """Say what a file is by its first bytes; None where they are nothing known."""
    name = repr(str(path))
    for place, magic, what, hint in MAGICS:
        if head[place : place + len(magic)] == magic:
            return FileProblem(f"{name} is {what}, not a checkpoint", hint=hint)
    if head[:2] == b"\x1f\x8b":
        inner = _gzipped_name(path, head)
        return FileProblem(f"{name} is a gzip file around {inner}", hint=f"unpack it first: {_unpack_gzip(path)}")
    if head.startswith(LFS):
        wanted = re.search(rb"size (\d{1,20})", head)
        rest = f" for a file of {int(wanted[1]):,} bytes" if wanted else ""
        return FileProblem(f"{name} is a Git-LFS pointer{rest}, not the file itself", hint="fetch the file: git lfs pull")
    if path.suffix.lower() == ".onnx" or (ONNX.match(head) and _mentions_onnx(head)):
        return FileProblem(f"{name} is an ONNX model, not a PyTorch checkpoint", hint="use the PyTorch model that it was exported from")
    return None


def _mentions_onnx(head: bytes) -> bool:
    return head[2:3] == b"\x12" or b"ai.onnx" in head or b"pytorch" in head[:64]


def _gzipped_name(path: Path, head: bytes) -> str:
    """Return the name that a gzip header gives, or the one that the suffix suggests."""
    if head[3] & 8 and not head[3] & 4:
        stored, end, _ = head[10:].partition(b"\0")
        if end and stored:
            return repr(one_line(stored.decode("latin-1"), 100))
    if path.name.endswith((".tar.gz", ".tgz")):
        return "a tar archive"
    return repr(path.stem) if path.suffix == ".gz" else "another file"


def _unpack_gzip(path: Path) -> str:
    name = one_line(path.name, 100)
    return f"tar xzf {name}" if path.name.endswith((".tar.gz", ".tgz")) else f"gunzip {name}"


def by_text(path: Path, head: bytes, size: int) -> FileProblem:
    """Say what a file is that begins with nothing known."""
    name = repr(str(path))
    if MARKUP.match(head):
        what = "an HTML page" if re.search(rb"<(!doctype html|html|head|body)", head, re.IGNORECASE) else "an XML document"
        hint = "the download led to a page (a login, or an error): open the address in a browser, and use its download link"
        return FileProblem(f"{name} is {what}, not a checkpoint", hint=hint)
    try:
        text = head.decode("utf-8") if size <= len(head) else head[:-4].decode("utf-8", "strict")
    except UnicodeDecodeError:
        text = ""
    if text and all(char.isprintable() or char.isspace() for char in text):
        return FileProblem(f"{name} is {_text_kind(path, text)}, not a checkpoint", hint="name the checkpoint's file")
    first = " ".join(f"{byte:02x}" for byte in head[:8])
    return FileProblem(f"{name} is in no format that netlens knows (it begins with {first})", hint=AGAIN)


def _text_kind(path: Path, text: str) -> str:
    start = text.lstrip()
    if start[:1] in ("{", "["):
        return "a JSON text"
    if path.suffix.lower() in (".yaml", ".yml") or YAML.match(start):
        return "a YAML or configuration text"
    if path.suffix == ".py" or start.startswith(("import ", "from ", "#!")):
        return "a program text"
    return f"a text ({one_line(start, 40)!r})"


def archive_problem(path: Path, what: str, inner: list[str], unpack: str) -> FileProblem:
    """Say what a zip or tar file is whose members are not those of a checkpoint."""
    name = repr(str(path))
    if any(member.endswith((".so", ".dylib", ".dll", ".cubin")) or "/aotinductor/" in member for member in inner):
        hint = "it holds native code, which netlens never runs: use the .pt2 file of torch.export.save"
        return FileProblem(f"{name} is a model compiled by AOTInductor", hint=hint)
    if inner and all(member.endswith(".npy") for member in inner):
        hint = "read it with numpy.load(..., allow_pickle=False)"
        return FileProblem(f"{name} is a file of numpy arrays (.npz), not a checkpoint", hint=hint)
    if any(member.endswith(("mimetype", "[Content_Types].xml")) for member in inner):
        return FileProblem(f"{name} is a document, not a checkpoint", hint="name the checkpoint's file")
    if {"config.json", "metadata.json", "model.weights.h5"} & set(inner):
        return FileProblem(f"{name} is a Keras model, not a PyTorch checkpoint", hint=CONVERT)
    if any(member.startswith("META-INF/") for member in inner) or any(member.startswith("MAR-INF/") for member in inner):
        return FileProblem(f"{name} is an archive of Java or TorchServe, not a checkpoint", hint=f"unpack it first: {unpack}")
    found = [member for member in inner if member.lower().endswith((".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".tar", ".pkl"))]
    if found:
        hint = f"unpack it first: {unpack}, then name {one_line(found[0], 100)}"
        return FileProblem(f"{name} is {what} around a checkpoint: {listed(found, 3)}", hint=hint)
    return FileProblem(f"{name} is {what}, not a checkpoint: it holds {listed(inner, 3) or 'nothing'}", hint="name the checkpoint's file")
