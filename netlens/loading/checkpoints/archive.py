"""What a checkpoint holds, as plain values: the reader fills it, everything else reads it.

Nothing of the file has been executed, and no tensor has been read: shapes, types and places come from its directory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor that a checkpoint lists."""

    name: str  # as a state dict names it, below its group's key: "layer1.0.conv1.weight"; may hold any characters
    shape: tuple[int, ...]
    dtype: str  # torch's name: "float32", "bfloat16", "float8_e4m3fn", "qint8"
    stride: tuple[int, ...]
    offset: int  # elements from the start of its storage
    storage: str  # equal for tensors that share memory: ties and views
    storage_bytes: int  # of the whole storage, as the file says
    location: str = "cpu"  # the device that it was saved from: "cuda:0"
    kind: str = "tensor"  # "parameter", "buffer" or "tensor" (the file does not say)
    trainable: bool | None = None  # None: the file does not say
    readable: bool = True  # False: of a class or layout that only its own package can rebuild
    why: str = ""  # the reason where it is not readable: "sparse", "quantized", "torchao...AffineQuantizedTensor"
    place: int = -1  # where its storage starts in the file, in bytes; -1: not there, or not as plain bytes (compressed, meta)
    file: str = ""  # the name of the file that holds it, where the checkpoint is several files

    @property
    def numel(self) -> int:
        """The number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, slots=True)
class TensorGroup:
    """Tensors that belong together: one state dict inside the checkpoint."""

    key: str  # where it stands: "" (the file is the state dict), "state_dict", "model", "ema.shadow"
    role: str  # "weights", "ema", "optimizer" or "other"
    tensors: tuple[StoredTensor, ...]


@dataclass(frozen=True, slots=True)
class ForeignGlobal:
    """A class or function that the file names and that plain weights do not need. It was not imported."""

    name: str  # "os.system", "my.models.Net"
    verdict: str  # "hostile" (runs commands, opens files, evaluates text), "known" (argparse, numpy, lightning, torch.nn) or "foreign"


@dataclass(frozen=True, slots=True)
class Archive:
    """A checkpoint, looked at."""

    path: Path
    kind: str  # a key of KINDS
    size: int  # bytes of the file, or of all files of the folder
    groups: tuple[TensorGroup, ...]
    scalars: dict[str, str] = field(default_factory=dict)  # "epoch": "12"; wrapper keys whose values are numbers, texts or flags
    contents: tuple[tuple[str, str], ...] = ()  # other entries of the wrapper, with what they are: ("lr_schedulers", "list of 1")
    foreign: tuple[ForeignGlobal, ...] = ()
    shards: tuple[Path, ...] = ()  # the files that hold the tensors, where these are several
    model_class: str = ""  # of a pickled module: "torchvision.models.resnet.ResNet"
    runs_code: str = ""  # what would run if it were loaded by its own loader: "the code of TorchScript"; "" for plain weights
    oddities: tuple[str, ...] = ()  # sentences for the reader: "storage 3 is larger than its tensors"
    byteorder: str = "little"  # of every number in the storages
    complete: bool = True  # False: it holds more than netlens follows, and some tensors are not listed
    mappable: bool = False  # every storage is in the file once, as plain bytes of the right size: torch may map it into memory


KINDS: dict[str, str] = {
    "torch zip": "written by torch.save (1.6 or newer)",
    "torch legacy": "written by torch.save before 1.6, or with _use_new_zipfile_serialization=False",
    "torch tar": "written by torch.save before 0.2",
    "pickled module": "a whole nn.Module written by torch.save(model)",
    "safetensors": "safetensors",
    "sharded": "several files and an index",
    "distributed": "a folder written by torch.distributed.checkpoint",
    "torchscript": "a TorchScript archive written by torch.jit.save",
    "exported program": "a program written by torch.export.save",
    "plain pickle": "a pickle that torch.save did not write",
}
