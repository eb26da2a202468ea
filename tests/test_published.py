"""Published weights: what is built equals torchvision's own build of the same file, and every way in which a download can fail."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import threading
import urllib.request
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models._api import WeightsEnum  # noqa: TID253

from netlens.errors import CheckpointDoesNotFit, FileProblem, ModelNotBuilt, NetlensError, UsageError
from netlens.loading import download
from netlens.loading.models import NamedModel, find_model
from netlens.loading.published import PublishedFile, published_weights, with_published_weights
from netlens.loading.specs import parse_model_spec
from netlens.probing.building import built_on_meta

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where torch keeps downloaded weights, empty; no proxy is set."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies of the first request
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path / "torch" / "hub" / "checkpoints"


def named(name: str, weights: str | None = "DEFAULT", **model_args: object) -> NamedModel:
    return find_model(parse_model_spec(name), model_args, weights)


def weights_file(state: dict[str, Any], folder: Path, *, legacy: bool = False) -> Path:
    """Save as torchvision's files are: their names end in the first digits of their sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "new.pth", _use_new_zipfile_serialization=not legacy)
    digits = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()[:8]
    return (folder / "new.pth").rename(folder / f"weights-{digits}.pth")


def point(monkeypatch: pytest.MonkeyPatch, model: NamedModel, url: str) -> None:
    monkeypatch.setattr(model.presets[0].value, "url", url)


# --- What is built: torchvision's own code loads the same file, and makes the truth


def torchvision_builds(model: NamedModel) -> nn.Module:
    """Call torchvision's builder as a user would; it finds the file in the cache."""
    extra = {"weights_backbone": None} if model.name.startswith(("ssd", "deeplab", "lraspp", "retinanet", "fasterrcnn")) else {}
    return model.target(weights=model.presets[0], **extra, **model.args)  # type: ignore[misc, return-value]


def loaded_names(model: NamedModel, monkeypatch: pytest.MonkeyPatch) -> OrderedDict[str, Tensor]:
    """Return random values for all that torchvision's builder loads, at the moment when it loads it: also for heads that it drops later."""
    found: list[OrderedDict[str, Tensor]] = []
    with monkeypatch.context() as patch, built_on_meta():
        patch.setattr(WeightsEnum, "get_state_dict", lambda *_args, **_kwargs: OrderedDict())
        patch.setattr(nn.Module, "load_state_dict", lambda module, *_args, **_kwargs: found.append(module.state_dict()))
        torchvision_builds(model)
    (state,) = found
    torch.manual_seed(5)
    for name, value in state.items():
        state[name] = torch.rand(value.shape) if value.is_floating_point() else value.clone()
    return state


def of_2017(state: dict[str, Tensor], in_file: Callable[[str], str]) -> dict[str, Tensor]:
    """Old names, no versions of modules, no counters of batch norms."""
    return {in_file(name): value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def before_densenet_was_renamed(name: str) -> str:
    for part in ("norm", "conv"):
        for number in ("1", "2"):
            name = name.replace(f".{part}{number}.", f".{part}.{number}.") if "denselayer" in name else name
    return name


def before_heads_were_nested(name: str) -> str:
    """RetinaNet's published file: conv.0 and conv.2 with a ReLU between them, today conv.0.0 and conv.1.0; inner_blocks.0, today .0.0."""
    if "layer_blocks" in name or "inner_blocks" in name:
        return name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
    return re.sub(r"_head\.conv\.(\d)\.0\.", lambda found: f"_head.conv.{2 * int(found[1])}.", name)


def before_vit_was_renamed(name: str) -> str:
    return name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2.")


def as_it_is(name: str) -> str:
    return name


CASES: list[Any] = [
    ("squeezenet1_1", {}, None),
    ("mnasnet0_5", {}, None),
    ("densenet121", {}, before_densenet_was_renamed),
    ("googlenet", {}, as_it_is),
    ("googlenet", {"aux_logits": True}, None),
    ("lraspp_mobilenet_v3_large", {}, None),
    ("deeplabv3_mobilenet_v3_large", {}, None),  # with an auxiliary head, which stays
    ("fasterrcnn_mobilenet_v3_large_320_fpn", {"trainable_backbone_layers": 2}, None),
    ("quantized_mobilenet_v2", {}, None),
]
MORE: list[Any] = [
    ("googlenet", {"transform_input": False}, None),
    ("inception_v3", {}, as_it_is),
    ("retinanet_resnet50_fpn", {}, before_heads_were_nested),
    ("ssdlite320_mobilenet_v3_large", {}, None),
    ("vit_b_16", {}, before_vit_was_renamed),
    ("regnet_y_400mf", {}, None),
    ("mobilenet_v3_small", {}, None),
    ("alexnet", {}, as_it_is),
    ("vgg11", {}, as_it_is),
    ("swin_t", {}, None),
    ("raft_small", {}, None),
    ("r3d_18", {}, None),
]


@pytest.mark.filterwarnings("ignore")  # torchvision's remarks on auxiliary heads
@pytest.mark.parametrize(("name", "model_args", "old_name"), [*CASES, *(pytest.param(*case, marks=pytest.mark.sweep) for case in MORE)])
def test_the_model_equals_the_one_that_torchvision_builds(name, model_args, old_name, cache, monkeypatch):
    model = named(name, **model_args)
    state = loaded_names(model, monkeypatch)
    path = weights_file(of_2017(state, old_name) if old_name else state, cache, legacy=old_name is not None)
    point(monkeypatch, model, f"https://nowhere.invalid/{path.name}")

    ours, theirs = with_published_weights(model).build(), torchvision_builds(model)

    expected = theirs.state_dict()
    assert list(ours.state_dict()) == list(expected)
    assert [key for key, value in ours.state_dict().items() if not torch.equal(value, expected[key])] == []
    assert {key: p.requires_grad for key, p in ours.named_parameters()} == {key: p.requires_grad for key, p in theirs.named_parameters()}
    assert str(ours) == str(theirs)  # layers, and their settings: torchvision changes the eps of some detectors
    assert settings(ours) == settings(theirs)


def settings(model: nn.Module) -> dict[str, object]:
    return {name: value for name, value in vars(model).items() if isinstance(value, (bool, int, float, str))}


def test_renamed_tensors_are_really_under_old_names_in_these_files():
    assert before_densenet_was_renamed("features.denseblock1.denselayer2.norm1.weight") == "features.denseblock1.denselayer2.norm.1.weight"
    assert before_vit_was_renamed("encoder.layers.encoder_layer_0.mlp.3.bias") == "encoder.layers.encoder_layer_0.mlp.linear_2.bias"
    assert before_heads_were_nested("head.regression_head.conv.3.0.bias") == "head.regression_head.conv.6.bias"
    assert before_heads_were_nested("backbone.fpn.inner_blocks.0.0.weight") == "backbone.fpn.inner_blocks.0.weight"
    assert before_heads_were_nested("head.classification_head.cls_logits.weight") == "head.classification_head.cls_logits.weight"


def test_what_was_loaded_is_said(cache, monkeypatch):
    model = named("googlenet")
    path = weights_file(loaded_names(model, monkeypatch), cache)
    point(monkeypatch, model, f"https://nowhere.invalid/{path.name}")
    first, last = with_published_weights(model).loaded
    # 57 convolutions, each with a batch norm of 5 tensors, and a linear layer of 2: 344. Two heads, each of one convolution and two linear
    # layers: 2 * (1 + 5 + 2 + 2), and the counters of their batch norms are harmless.
    assert first == "GoogLeNet_Weights.IMAGENET1K_V1: 344 of 344 tensors fit googlenet, and 18 of the file have no place in it"
    assert last == "torchvision takes the auxiliary heads off after loading: aux1, aux2"


# --- What is refused, before anything is fetched where that can be told


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        pytest.fail("something was fetched")

    monkeypatch.setattr(download, "urlopen", refuse)


def test_quantised_weights_are_refused_and_nothing_is_fetched(cache, no_network):
    with pytest.raises(UsageError, match=r"ResNet18_QuantizedWeights\.IMAGENET1K_FBGEMM_V1 is quantised") as caught:
        with_published_weights(named("quantized_resnet18", quantize=True))
    assert "quantize=True" in caught.value.hint
    assert not cache.exists()


def test_arguments_that_do_not_go_with_the_weights_are_refused_and_nothing_is_fetched(cache, no_network):
    with pytest.raises(ModelNotBuilt, match=r"num_classes.*1000.*10"):
        with_published_weights(named("squeezenet1_1", num_classes=10))
    assert not cache.exists()


def test_arguments_that_change_shapes_are_named(cache, monkeypatch):
    path = weights_file(loaded_names(named("squeezenet1_1"), monkeypatch), cache)
    model = named("mobilenet_v3_small", width_mult=0.5)
    point(monkeypatch, model, f"https://nowhere.invalid/{path.name}")
    with pytest.raises(CheckpointDoesNotFit, match=path.name) as caught:
        with_published_weights(model)
    assert caught.value.hint == "leave --model-arg out"


def test_a_model_without_weights_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="resnet18"):
        published_weights(named("resnet18", None))


def test_nothing_of_the_file_is_run(cache, monkeypatch, tmp_path):
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    path = weights_file({"features.0.weight": Hostile()}, cache)
    model = named("squeezenet1_1")
    point(monkeypatch, model, f"https://nowhere.invalid/{path.name}")
    with pytest.raises(NetlensError):
        with_published_weights(model).build()
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists()  # it would have


# --- The file: from the cache, or from a server of our own

CONTENT = os.urandom(3 << 20)
NAME = f"weights-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


class Handler(BaseHTTPRequestHandler):
    """Answers by the first part of the path."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        parts = self.path.removeprefix("http://weights.invalid").split("/")  # a proxy is asked for the whole URL
        getattr(self, parts[1], self.code)()

    def code(self) -> None:
        self.send_error(int(self.path.split("/")[1]))

    def good(self) -> None:
        self.answer(CONTENT, len(CONTENT))

    def endless(self) -> None:
        self.answer(CONTENT, None)

    def short(self) -> None:
        self.answer(CONTENT[:-1000], len(CONTENT))

    def other(self) -> None:
        self.answer(b"<html>please log in</html>", 26)

    def slow(self) -> None:
        self.answer(CONTENT[:1000], len(CONTENT))
        self.wfile.flush()
        self.server.stop.wait(5)  # type: ignore[attr-defined]

    def moved(self) -> None:
        self.send_response(302)
        self.send_header("Location", f"/good/{NAME}")
        self.end_headers()

    def answer(self, content: bytes, length: int | None) -> None:
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    """A server on this machine; `asked` are the paths that it was asked for."""
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.asked, made.stop = [], threading.Event()  # type: ignore[attr-defined]
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield made
    made.stop.set()  # type: ignore[attr-defined]
    made.shutdown()
    made.server_close()


def address(server: ThreadingHTTPServer) -> str:
    return f"127.0.0.1:{server.server_address[1]}"


def inside(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


Fetch = Callable[..., PublishedFile]


@pytest.fixture
def fetch(cache: Path, server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> Fetch:
    """Ask for the weights of resnet18, which are published at a URL of our own; "{server}" stands for its address."""

    def run(url: str, **options: Any) -> PublishedFile:
        model = named("resnet18")
        point(monkeypatch, model, url.format(server=address(server)))
        return published_weights(model, **options)

    return run


@pytest.mark.parametrize(("how", "total"), [("good", len(CONTENT)), ("endless", None), ("moved", len(CONTENT))])
def test_a_file_is_fetched_once(how, total, fetch, cache, server):
    heard: list[tuple[int, int | None]] = []
    file = fetch(f"http://{{server}}/{how}/{NAME}", progress=lambda *numbers: heard.append(numbers))

    assert file.path == cache / NAME
    assert file.path.read_bytes() == CONTENT
    assert (file.entry, file.sha256, file.downloaded) == ("ResNet18_Weights.IMAGENET1K_V1", NAME[8:16], True)
    assert inside(cache) == [NAME]
    assert file.path.stat().st_mode & 0o777 == 0o666 & ~umask()  # like any file of the user's
    done = [number for number, _total in heard]
    assert done == sorted(set(done)) and done[-1] == len(CONTENT) and {total for _number, total in heard} == {total}

    asked = len(server.asked)
    again = fetch(f"http://{{server}}/{how}/{NAME}")
    assert (again.path, again.downloaded, len(server.asked)) == (file.path, False, asked)


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_local_url_works(fetch, tmp_path, cache):
    (tmp_path / NAME).write_bytes(CONTENT)
    assert fetch((tmp_path / NAME).as_uri()).downloaded
    assert (cache / NAME).read_bytes() == CONTENT


def test_a_name_without_digits_is_taken_as_it_is(fetch):
    """Like quantized/resnet18_fbgemm_16fa66dd.pth, and as torch.hub reads names."""
    assert fetch("http://{server}/other/resnet18_fbgemm_16fa66dd.pth").sha256 == ""


def test_a_proxy_is_used(fetch, server, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://{address(server)}")
    assert fetch(f"http://weights.invalid/good/{NAME}").downloaded
    assert server.asked == [f"http://weights.invalid/good/{NAME}"]


@pytest.mark.parametrize(
    ("url", "message", "hint"),
    [
        ("http://{server}/403/X", "it answers 403 Forbidden", "fetch"),
        ("http://{server}/404/X", "it answers 404 Not Found", "fetch"),
        ("http://{server}/short/X", f"only {len(CONTENT) - 1000:,} of {len(CONTENT):,} bytes came", "fetch"),
        ("http://{server}/other/X", "what came is another file, 26 bytes with a sha256 of", "fetch"),
        ("http://{server}/slow/X", "it does not answer", "set HTTPS_PROXY"),
        ("https://{server}/good/X", "no secure connection, SSLError", "set SSL_CERT_FILE"),
        ("http://127.0.0.1:1/good/X", "Connection refused", "fetch"),
        ("http://nowhere.invalid/good/X", "its name is not known here", "set HTTPS_PROXY"),
        ("file:///nowhere/X", "No such file or directory", "fetch"),
        ("odd://nowhere/X", "unknown url type: odd", "fetch"),
    ],
)
def test_every_failure_ends_in_two_lines_and_leaves_nothing(url, message, hint, fetch, cache, server, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    resolve = socket.getaddrinfo

    def without_dns(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "127.0.0.1":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", without_dns)
    url = url.replace("X", NAME)
    with pytest.raises(FileProblem) as caught:
        fetch(url)
    shown = url.format(server=address(server))
    host = shown.split("/")[2] or shown
    assert caught.value.message.startswith(f"{NAME} cannot be fetched from {host}: ")
    assert message in caught.value.message
    assert caught.value.hint.startswith(hint)
    assert caught.value.hint.endswith(f"put it into {cache}, or name it: --checkpoint FILE")
    assert shown in caught.value.hint
    assert inside(cache) == []


def test_a_search_for_the_host_has_an_end(fetch, cache, monkeypatch):
    asked, stop = threading.Event(), threading.Event()

    def hang(*_args: object, **_kwargs: object) -> None:
        asked.set()
        stop.wait(5)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(download, "PATIENCE", 0.2)
    with pytest.raises(FileProblem, match="it does not answer"):
        fetch(f"http://nowhere.invalid/{NAME}")
    assert asked.is_set() and not stop.is_set()
    stop.set()
    assert inside(cache) == []


def test_a_proxy_is_named_without_its_password(fetch, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:1")
    with pytest.raises(FileProblem) as caught:
        fetch(f"http://weights.invalid/good/{NAME}")
    assert f"{NAME} cannot be fetched from weights.invalid through the proxy 127.0.0.1:1: " in caught.value.message
    assert "secret" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), RuntimeError("of the caller")])
def test_what_breaks_off_leaves_nothing(error, fetch, cache):
    def break_off(_done: int, _total: int | None) -> None:
        assert len(inside(cache)) == 1
        raise error

    expected = FileProblem if isinstance(error, OSError) else type(error)
    with pytest.raises(expected) as caught:
        fetch(f"http://{{server}}/good/{NAME}", progress=break_off)
    assert inside(cache) == []
    if isinstance(error, OSError):
        assert caught.value.message == f"{NAME} cannot be written into {cache}: No space left on device"
        assert "TORCH_HOME" in caught.value.hint


def test_a_full_disk_is_told_before_the_download(fetch, cache, monkeypatch):
    usage = namedtuple("usage", "total used free")(10, 10, 1000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _folder: usage)
    with pytest.raises(FileProblem, match="3,145,728 bytes, and 1,000 are free"):
        fetch(f"http://{{server}}/good/{NAME}", progress=lambda *_numbers: pytest.fail("it was fetched"))
    assert inside(cache) == []


def test_a_cache_that_may_not_be_written_is_told_before_the_host_is_asked(fetch, server, monkeypatch):
    def refuse(path: Path, *_args: object, **_kwargs: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(FileProblem, match=f"{NAME} cannot be written into .*: Permission denied"):
        fetch(f"http://{{server}}/good/{NAME}")
    assert server.asked == []


def test_a_cache_below_a_file_is_an_error_of_two_lines(fetch, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with pytest.raises(FileProblem, match="Not a directory"):
        fetch(f"http://{{server}}/good/{NAME}")


@pytest.mark.parametrize("content", [CONTENT[:-1], b"", CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])])
def test_a_damaged_file_in_the_cache_is_told_and_kept(content, fetch, cache, server):
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(content)
    with pytest.raises(FileProblem, match=f"is damaged: its {len(content):,} bytes") as caught:
        fetch(f"http://{{server}}/good/{NAME}")
    assert caught.value.hint.endswith(f"rm {cache / NAME}")
    assert server.asked == [] and (cache / NAME).read_bytes() == content
    (cache / NAME).unlink()
    assert fetch(f"http://{{server}}/good/{NAME}").downloaded
