"""Preprocessing: bit for bit what torchvision, timm and transformers do, back to the photo, and who said so."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from netlens.errors import InputError, UsageError
from netlens.loading.checkpoints.archive import Archive
from netlens.loading.checkpoints.weights import on_meta
from netlens.loading.models import find_model
from netlens.loading.preprocessing import Framing, Preprocessing, load_batch, prepared, preprocess
from netlens.loading.preprocessing_options import parse_mean, parse_size, parse_std
from netlens.loading.preprocessing_published import published_preprocessing
from netlens.loading.preprocessing_sources import choose_preprocessing
from netlens.loading.specs import parse_model_spec

RAW = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def noise(height: int, width: int, channels: int = 3) -> Image.Image:
    values = np.random.default_rng(height * width).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(values if channels > 1 else values[:, :, 0])


PHOTOS = [noise(211, 317), noise(149, 98), noise(33, 40)]  # wide, tall, small; sides that leave rests when they are divided


@cache
def chosen(spec: str, args: str = "{}", weights: str | None = None) -> Preprocessing:
    named = find_model(parse_model_spec(spec), json.loads(args), weights)
    return choose_preprocessing(named, on_meta(named))


# --- Bit for bit


@cache
def presets() -> dict[str, tuple[str, Any]]:
    """Return one model and its weights for each different preprocessing in torchvision."""
    import torchvision.models as models

    found: dict[str, tuple[str, Any]] = {}
    for name in models.list_models():
        for entry in models.get_model_weights(name):
            transform = entry.transforms()
            key = str({"task": type(transform).__name__, **{k: v for k, v in vars(transform).items() if not k.startswith("_")}})
            found.setdefault(key, (name, entry))
    return found


def test_every_preset_of_torchvision_is_done_bit_for_bit():
    from torchvision.transforms.functional import pil_to_tensor

    differing = []
    for name, entry in presets().values():
        named = find_model(parse_model_spec(name), {"quantize": True} if "Quantized" in str(entry) else {}, entry.name)
        transform, task = entry.transforms(), type(entry.transforms()).__name__
        crop = getattr(transform, "crop_size", [0])
        known = published_preprocessing(named, nn.Identity(), (crop[0], crop[-1]), str(entry))
        colours = 3 if len(known.mean) == 1 else 1
        preprocessing = Preprocessing(known.framing, known.mean * colours, known.std * colours, known.source)
        for photo in PHOTOS[:2]:
            if task == "VideoClassification":
                expected = transform(pil_to_tensor(photo)[None])[:, 0]
            else:
                expected = transform(photo, photo)[0] if task == "OpticalFlow" else transform(photo)
            if not torch.equal(preprocess(photo, preprocessing).tensor, expected) or preprocessing.source != str(entry):
                differing.append((str(entry), photo.size, preprocessing))
    assert differing == [] and len(presets()) >= 30


TIMM = (
    "resnet18.a1_in1k",  # bicubic, 95 %
    "tf_efficientnet_b0.ap_in1k",  # 87.5 %, mean 0.5
    "mobilenetv3_large_100.miil_in21k",  # bilinear, mean 0, std 1
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k",  # 90 %
    "convnext_base.clip_laion2b_augreg_ft_in12k_in1k_384",  # squash
    "dm_nfnet_f0.dm_in1k",  # squash, then crop
    "vit_base_patch16_siglip_224.webli",  # bicubic, squash or centre, mean 0.5
)
CONFIGS = {
    "border": {"input_size": (3, 64, 64), "crop_pct": 1.0, "crop_mode": "border", "mean": (0.2, 0.5, 0.9), "std": (0.3, 0.2, 0.1)},
    "border, cropped": {"input_size": (3, 64, 48), "crop_pct": 0.9, "crop_mode": "border", "interpolation": "bilinear"},
    "not square": {"input_size": (3, 48, 80), "crop_pct": 0.9, "interpolation": "bilinear"},
    "not square, squashed": {"input_size": (3, 80, 48), "crop_pct": 0.8, "crop_mode": "squash", "interpolation": "lanczos"},
    "nothing": {"input_size": (3, 96, 96)},
}


class Configured(nn.Module):
    """A model with timm's attribute."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.pretrained_cfg = config


def timm_transform(config: dict[str, Any]) -> Any:
    from timm.data import create_transform, resolve_data_config

    return create_transform(**resolve_data_config({}, pretrained_cfg=config), is_training=False)


@pytest.mark.parametrize("name", TIMM)
def test_the_configuration_of_timm_is_done_bit_for_bit(name):
    from timm.models import get_pretrained_cfg

    transform = timm_transform(get_pretrained_cfg(name).to_dict())
    preprocessing = chosen(f"timm:{name}")
    assert preprocessing.source == "timm's pretrained_cfg"
    assert [photo.size for photo in PHOTOS if not torch.equal(preprocess(photo, preprocessing).tensor, transform(photo))] == []


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_way_to_crop_of_timm_is_done_bit_for_bit(config):
    preprocessing = choose_preprocessing(None, Configured(config))
    transform = timm_transform(config)
    assert [photo.size for photo in PHOTOS if not torch.equal(preprocess(photo, preprocessing).tensor, transform(photo))] == []


PROCESSORS = {
    "stretched": ("ViT", "ViT", {"size": {"height": 64, "width": 48}}),
    "cropped": ("CLIPVision", "CLIP", {"size": {"shortest_edge": 65}, "crop_size": {"height": 49, "width": 65}}),
    "padded": ("DeiT", "DeiT", {"size": {"height": 40, "width": 40}, "crop_size": {"height": 64, "width": 64}, "do_center_crop": True}),
    "small convnext": ("ConvNext", "ConvNext", {"size": {"shortest_edge": 63}, "crop_pct": 0.875}),
    "large convnext": ("ConvNext", "ConvNext", {"size": {"shortest_edge": 384}}),
    "std twice": ("EfficientNet", "EfficientNet", {"size": {"height": 66, "width": 66}}),
    "to -1..1": (
        "EfficientNet",
        "EfficientNet",
        {"size": {"height": 66, "width": 66}, "rescale_factor": 1 / 127.5, "rescale_offset": True, "include_top": False},
    ),
    "of 0..255": ("ViT", "ViT", {"do_rescale": False, "image_mean": [120.0, 110.0, 100.0], "image_std": [60.0, 50.0, 40.0]}),
    "raw": ("ViT", "ViT", {"do_normalize": False}),
}


@pytest.mark.parametrize(("config", "processor", "values"), PROCESSORS.values(), ids=PROCESSORS)
def test_the_image_processor_of_transformers_is_done(tmp_path, config, processor, values):
    """Against the processor that works with Pillow, as all did before transformers 5."""
    import transformers

    kind = getattr(transformers, f"{processor}ImageProcessorPil", None) or getattr(transformers, f"{processor}ImageProcessor")
    kind(**values).save_pretrained(tmp_path)
    getattr(transformers, f"{config}Config")().save_pretrained(tmp_path)
    preprocessing = chosen(f"hf:{tmp_path}")
    assert preprocessing.source == f"preprocessor_config.json of {tmp_path}" and preprocessing.assumed == ()
    expected = torch.tensor(np.asarray(kind(**values)(PHOTOS[0])["pixel_values"][0])).float()
    torch.testing.assert_close(preprocess(PHOTOS[0], preprocessing).tensor, expected, rtol=0, atol=1e-6)


def test_a_processor_of_transformers_5_stands_in_another_file(tmp_path):
    import transformers

    transformers.ViTConfig().save_pretrained(tmp_path)
    values = {"size": {"height": 32, "width": 32}, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3], "resample": 3}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": values}))
    found = chosen(f"hf:{tmp_path}")
    assert (found.framing, found.mean, found.std) == (Framing("stretch", (32, 32), None, "bicubic"), (0.1, 0.2, 0.3), (1, 2, 3))


def test_the_hub_is_asked_only_for_a_name_that_the_user_gave(monkeypatch):
    from transformers.utils import hub

    asked: list[bool] = []

    def cached_file(_name: str, _file: str, *, local_files_only: bool) -> str:
        asked.append(local_files_only)
        raise OSError("no network")

    monkeypatch.setattr(hub, "cached_file", cached_file)
    model = nn.Conv2d(3, 2, 3)
    model.config = SimpleNamespace(name_or_path="some/model")
    assert choose_preprocessing(None, model).assumed == ("size", "mean", "std")
    assert asked == [True, True]


@pytest.mark.parametrize(
    "values", ["[1]", "{", '{"size": "large"}', '{"image_mean": null}', '{"rescale_factor": 0}', '{"size": {}, "resample": 99}']
)
def test_a_processor_that_cannot_be_read_is_as_none(tmp_path, values):
    model = nn.Conv2d(3, 2, 3)
    model.config = SimpleNamespace(name_or_path=str(tmp_path))
    (tmp_path / "preprocessor_config.json").write_text(values)
    assert choose_preprocessing(None, model).source == f"{ASSUMED}, 224 x 224"


WITHOUT_TORCHVISION = """
import sys
sys.modules["torchvision"] = sys.modules["timm"] = None
import numpy as np
from pathlib import Path
from netlens.loading.preprocessing import Framing, Preprocessing, load_batch
for size in ((32, 32), (40, 24)):
    preprocessing = Preprocessing(Framing.fitted(*size), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), "")
    np.save(f"{size[0]}.npy", load_batch([Path("a.png")], preprocessing).tensor[0].numpy())
"""


def test_size_mean_and_std_need_nothing_but_torch_and_pillow(tmp_path):
    """By hand, of a photo 317 x 211: to 48 x 32, and from column 8; and within 60 x 40, from column 18."""
    PHOTOS[0].save(tmp_path / "a.png")
    folder = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", WITHOUT_TORCHVISION], cwd=tmp_path, env={"PYTHONPATH": str(folder)}, check=True)
    for (height, width), resized, left in (((32, 32), (48, 32), 8), ((40, 24), (60, 40), 18)):
        pixels = np.asarray(PHOTOS[0].resize(resized, Image.Resampling.BILINEAR), np.float64)[:, left : left + width]
        expected = ((pixels / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]).transpose(2, 0, 1)
        np.testing.assert_allclose(np.load(tmp_path / f"{height}.npy"), expected, rtol=0, atol=1e-5)


# --- Back to the photo


FRAMINGS = {
    "as published": Framing("shorter", (256, 256), (224, 224)),
    "small": Framing("shorter", (61, 61), (48, 48)),
    "odd rests": Framing("shorter", (62, 62), (49, 49)),
    "uncropped": Framing("shorter", (100, 100)),
    "stretched": Framing("stretch", (70, 90)),
    "stretched and cropped": Framing("stretch", (71, 90), (64, 81)),
    "covering": Framing("cover", (60, 90), (60, 90)),
    "within": Framing("contain", (64, 64), (64, 64), pad_mean=True),
    "padded": Framing("none", crop=(301, 302)),
    "padded in height": Framing("none", crop=(260, 50)),
    "bicubic": Framing("shorter", (140, 140), (101, 101), "bicubic"),
}


def ramps(height: int, width: int) -> Image.Image:
    """Return a photo that says its own places: red is the column, green the row, blue is 255 everywhere."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return Image.fromarray(np.stack([columns, rows, np.full_like(rows, 255)], 2))


@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
@pytest.mark.parametrize(("height", "width"), [(171, 251), (250, 167), (203, 203), (37, 53)])
def test_every_pixel_of_the_input_lies_where_the_photo_has_it(framing, height, width):
    """Interpolation keeps a linear ramp: so a pixel's red and green tell the column and the row of the photo at its centre."""
    found = preprocess(ramps(height, width), Preprocessing(framing, **RAW, source=""))
    red, green, blue = (found.tensor * 255).double().numpy()
    geometry = found.geometry
    assert (geometry.photo, geometry.input) == ((height, width), red.shape)
    ys, xs = np.mgrid[: red.shape[0], : red.shape[1]] + 0.5
    columns, rows = geometry.to_photo(xs, ys)
    edge = 3 * max(1, width / red.shape[1], height / red.shape[0])  # there, interpolation has pixels on one side only
    inside = (columns > edge) & (columns < width - edge) & (rows > edge) & (rows < height - edge)
    assert inside.sum() > 100 and blue[inside].min() == 255
    for seen, expected in ((red, columns), (green, rows)):
        error = (seen - (expected - 0.5))[inside]  # the centre of column 7 is at 7.5
        assert np.abs(error).max() < 0.75 and abs(error.mean()) < 0.1, (error.mean(), np.abs(error).max())
    outside = (columns < 0) | (columns > width) | (rows < 0) | (rows > height)
    if framing.pad_mean is False:
        assert (blue[outside] == 0).all()


def test_the_box_of_a_published_preset_by_hand():
    """333 x 500 becomes 256 x int(256 * 500 / 333) = 384; the crop begins at row (256 - 224) / 2 = 16 and column (384 - 224) / 2 = 80."""
    found = preprocess(noise(333, 500), chosen("resnet18")).geometry
    assert found.box == pytest.approx((80 * 500 / 384, 16 * 333 / 256, 304 * 500 / 384, 240 * 333 / 256), abs=1e-12)
    assert found.to_input(*found.to_photo(3.5, 200.25)) == pytest.approx((3.5, 200.25), abs=1e-12)
    assert found.to_photo(0, 0) == found.box[:2] and found.to_photo(224, 224) == pytest.approx(found.box[2:], abs=1e-12)


def test_a_crop_larger_than_the_photo_reaches_beyond_it():
    """A photo of 3 x 10 in an input of 6 x 5: one row of padding above (3 // 2), two below; columns 2 (2.5, to even) to 7."""
    found = preprocess(ramps(3, 10), Preprocessing(Framing("none", crop=(6, 5)), **RAW, source=""))
    assert found.geometry.box == (2, -1, 7, 5)
    assert (found.tensor[2] * 255).tolist() == [[0] * 5, *[[255] * 5] * 3, [0] * 5, [0] * 5]
    assert (found.tensor[0, 1] * 255).round().tolist() == [2, 3, 4, 5, 6]


def test_a_thread_of_a_picture_does_not_fill_the_memory():
    with pytest.raises(InputError, match="would be resized to 256 x 10240000"):
        preprocess(Image.new("RGB", (40_000, 1)), chosen("resnet18"))


# --- Channels


def test_a_grey_model_sees_the_grey_of_pillow():
    preprocessing = Preprocessing(Framing.fitted(32, 32), (0.25,), (0.5,), "")
    found = preprocess(PHOTOS[0], preprocessing).tensor
    grey = np.asarray(PHOTOS[0].convert("L").resize((48, 32), Image.Resampling.BILINEAR), np.float64)[:, 8:40]
    np.testing.assert_allclose(found.numpy(), (grey[None] / 255 - 0.25) / 0.5, rtol=0, atol=1e-6)


def test_a_model_of_four_channels_sees_the_opacity(tmp_path):
    Image.new("RGBA", (5, 5), (10, 20, 30, 51)).save(tmp_path / "a.png")
    Image.new("RGB", (5, 5), (10, 20, 30)).save(tmp_path / "b.png")
    preprocessing = Preprocessing(Framing.fitted(2, 2), (0.0,) * 4, (1.0,) * 4, "")
    found = load_batch([tmp_path / "a.png", tmp_path / "b.png"], preprocessing)
    assert found.notes == ()
    assert (found.tensor[:, :, 0, 0] * 255).round().tolist() == [[10, 20, 30, 51], [10, 20, 30, 255]]


@pytest.mark.parametrize(
    ("channels", "mean", "std"),
    [
        (1, (0.299 * 0.485 + 0.587 * 0.456 + 0.114 * 0.406,), (0.299 * 0.229 + 0.587 * 0.224 + 0.114 * 0.225,)),  # ITU-R 601-2
        (3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        (4, (0.485, 0.456, 0.406, 0), (0.229, 0.224, 0.225, 1)),
    ],
)
def test_three_colours_become_what_the_model_takes(channels, mean, std):
    found = choose_preprocessing(None, nn.Conv2d(channels, 2, 3))
    assert (found.mean, found.std) == (pytest.approx(mean), pytest.approx(std))


# --- Who said so


def archive(**scalars: str) -> Archive:
    return Archive(Path("runs/best.pt"), "torch zip", 0, (), scalars=scalars)


class Sized(nn.Module):
    """A model that keeps the side of its pictures, as many vision transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.image_size = 48
        self.patches = nn.Conv2d(3, 8, 4, 4)


NETS = f"{Path(__file__).parents[1]}/sample_models/nets.py:LeNet5"
WEIGHTS, ASSUMED = "ResNet18_Weights.IMAGENET1K_V1", "assumed: ImageNet's mean and std"
HALVES = {"mean": "0.5,0.5,0.5", "std": "[0.25, 0.25, 0.25]"}
SAID: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "published": (
        "resnet18",
        {},
        WEIGHTS,
        "shorter side to 256, middle 224 x 224, bilinear; mean 0.485, 0.456, 0.406; std 0.229, 0.224, 0.225",
    ),
    "--size": ("resnet18", {"size": (64, 64)}, f"{WEIGHTS}, size from --size", "shorter side to 64, middle 64 x 64, bilinear; mean 0.485,"),
    "--mean": ("resnet18", {"mean": (0.5,)}, f"{WEIGHTS}, mean from --mean", "224 x 224, bilinear; mean 0.5, 0.5, 0.5; std 0.229,"),
    "all": (
        NETS,
        {"size": (9, 8), "mean": (0.1,), "std": (0.3,)},
        "--size, --mean, --std",
        "covering 9 x 8, middle 9 x 8, bilinear; mean 0.1; std 0.3",
    ),
    "of 0..255": (
        "resnet18",
        {"mean": (51.0, 102.0, 153.0), "std": (51.0,)},
        f"{WEIGHTS}, mean from --mean, std from --std",
        "mean 0.2, 0.4, 0.6; std 0.2, 0.2, 0.2",
    ),
    "caffe": (
        "resnet18",
        {"mean": (102.0,), "std": (1.0,)},
        f"{WEIGHTS}, mean from --mean, std from --std",
        "mean 0.4, 0.4, 0.4; std 0.003922,",
    ),
    "metadata": (
        "resnet18",
        {"archive": archive(**HALVES, size="64")},
        "metadata of best.pt",
        "shorter side to 64, middle 64 x 64, bilinear; mean 0.5, 0.5, 0.5; std 0.25,",
    ),
    "some metadata": (
        "resnet18",
        {"archive": archive(**HALVES)},
        f"{WEIGHTS}, mean and std from metadata of best.pt",
        "shorter side to 256, middle 224 x 224, bilinear; mean 0.5,",
    ),
    "nested": (
        NETS,
        {"archive": archive(**{"args.img_size": "(1, 30, 40)", "args.mean": "0.1"})},
        "metadata of best.pt, assumed: ImageNet's std",
        "covering 30 x 40, middle 30 x 40, bilinear; mean 0.1;",
    ),
    "JSON": (
        NETS,
        {"archive": archive(preprocessing='{"mean": 0.13, "std": [0.31], "size": [32, 32]}')},
        "metadata of best.pt",
        "32 x 32, bilinear; mean 0.13; std 0.31",
    ),
    "both": (
        "resnet18",
        {"archive": archive(**HALVES, size="64"), "size": (8, 8)},
        "metadata of best.pt, size from --size",
        "middle 8 x 8, bilinear; mean 0.5,",
    ),
    "other metadata": (
        "resnet18",
        {"archive": archive(epoch="3", mean="high", std="0,0,0", size="-3", **{"loss.mean": "0.1", "optimizer": "{broken"})},
        WEIGHTS,
        "mean 0.485",
    ),
    "assumed": (NETS, {}, f"{ASSUMED}, 224 x 224", "shorter side to 224, middle 224 x 224, bilinear; mean 0.459; std 0.2256"),
    "in part": (NETS, {"size": (32, 32)}, f"--size, {ASSUMED}", "32 x 32"),
    "segmentation": ("fcn_resnet50", {}, "FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1", "shorter side to 520, bilinear; mean 0.485"),
    "detection": ("fasterrcnn_resnet50_fpn", {}, "FasterRCNN_ResNet50_FPN_Weights.COCO_V1", "as it is; mean 0, 0, 0; std 1, 1, 1"),
    "other default": ("vit_h_14", {}, "ViT_H_14_Weights.IMAGENET1K_SWAG_LINEAR_V1", "shorter side to 224, middle 224 x 224, bicubic"),
    "a type": ("hf:vit", {}, f"ViTConfig, {ASSUMED}", "shorter side to 224"),
}


@pytest.mark.parametrize(("spec", "said", "source", "what"), SAID.values(), ids=SAID)
def test_the_report_says_who_said_so(spec, said, source, what):
    named = find_model(parse_model_spec(spec), {}, None)
    found = choose_preprocessing(named, on_meta(named), **said)
    assert found.source == source
    assert what in str(found)
    parts = {"assumed: ImageNet's mean and std, 224 x 224": ("size", "mean", "std"), "assumed: ImageNet's std": ("std",)}
    told = source[source.index("assumed") :] if "assumed" in source else None
    assert found.assumed == (() if told is None else parts.get(told, ("mean", "std")))


def test_a_model_of_another_size_than_its_weights_says_its_own():
    named = find_model(parse_model_spec("vit_b_16"), {"image_size": 64}, None)
    found = choose_preprocessing(named, on_meta(named))
    assert found.source == "ViT_B_16_Weights.IMAGENET1K_V1, size from image size of VisionTransformer"
    assert found.framing == Framing.fitted(64, 64)
    assert choose_preprocessing(None, Sized()).source == f"image size of Sized, {ASSUMED}"


def test_channels_of_the_metadata_choose_between_ways_to_call():
    """A linear layer of 12 features: 3 channels of 2 x 2 pixels; of 100, one of 10 x 10; the metadata cannot change that."""
    assert choose_preprocessing(None, nn.Linear(12, 2)).framing == Framing.fitted(2, 2)
    found = choose_preprocessing(None, nn.Linear(100, 2), archive=archive(channels="3"))
    assert (found.channels, found.framing) == (1, Framing.fitted(10, 10))
    lazy = nn.LazyConv2d(4, 3)
    found = choose_preprocessing(None, lazy, archive=archive(input_size="[1, 20, 20]"))
    assert (found.channels, found.framing) == (1, Framing.fitted(20, 20))


@pytest.mark.parametrize(
    ("model", "said", "message"),
    [
        (nn.Sequential(nn.Embedding(9, 16), nn.Linear(16, 2)), {}, "takes no picture: its input is 1,128:int64"),
        (nn.Conv2d(5, 2, 3), {}, "takes pictures of 5 channels"),
        (nn.Conv3d(1, 2, 3), {}, "takes no picture"),
        (nn.Identity(), {}, "tells what it takes"),
        (nn.Conv2d(1, 2, 3), {"mean": (0.1, 0.2, 0.3, 0.4)}, "--mean has 4 values, and the model takes grey pictures"),
    ],
)
def test_a_model_that_takes_no_such_pictures_is_told(model, said, message):
    with pytest.raises((InputError, UsageError), match=message):
        choose_preprocessing(None, model, **said)


# --- Options


@pytest.mark.parametrize(
    ("text", "size"), [("224", (224, 224)), ("224,320", (224, 320)), (" (48, 64) ", (48, 64)), ("7 9", (7, 9)), ("1,16384", (1, 16384))]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "values"), [("0.5", (0.5,)), ("0.1,0.2, 0.3", (0.1, 0.2, 0.3)), ("[123.7, 116, 1e2]", (123.7, 116, 100))])
def test_means_and_stds(text, values):
    assert parse_mean(text) == parse_std(text) == values


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_size, "3,224,224", "is not a size"),
        (parse_size, "22.5", "is not a size"),
        (parse_size, "640x480", "is not a size"),
        (parse_size, "", "is not a size"),
        (parse_size, "0", "1 to 16384"),
        (parse_size, "224,99999", "1 to 16384"),
        (parse_mean, "imagenet", "is not a list of numbers"),
        (parse_mean, "0.1,nan,0.2", "is not a list of numbers"),
        (parse_mean, "0.1,0.2", "has 2 values"),
        (parse_std, "0.1,0,0.2", "above 0"),
    ],
)
def test_mistakes_in_options_are_told(parse, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        parse(text)
    assert repr(text) in caught.value.message and caught.value.hint.startswith("write ")


# --- Several


def test_pictures_of_different_sizes_are_one_batch(tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for photo, path in zip(PHOTOS, paths, strict=True):
        photo.save(path)
    Image.new("RGBA", (50, 50), (0, 0, 0, 0)).save(tmp_path / "logo.png")
    preprocessing = chosen("resnet18")
    found = load_batch([*paths, tmp_path / "logo.png"], preprocessing)
    assert found.tensor.shape == (4, 3, 224, 224) and found.tensor.is_contiguous() and found.tensor.dtype == torch.float32
    for row, photo in zip(found.tensor, PHOTOS, strict=False):
        assert torch.equal(row, presets_transform()(photo))
    assert [geometry.photo for geometry in found.geometries] == [(211, 317), (149, 98), (33, 40), (50, 50)]
    assert found.notes == ("logo.png: transparent parts are shown on white",)


def presets_transform() -> Any:
    from torchvision.models import ResNet18_Weights

    return ResNet18_Weights.DEFAULT.transforms()


def test_without_a_crop_sizes_differ_and_pictures_come_one_by_one(tmp_path):
    for index in (0, 1):
        PHOTOS[index].save(tmp_path / f"{index}.png")
    paths = [tmp_path / "0.png", tmp_path / "1.png"]
    preprocessing = Preprocessing(Framing(), **RAW, source="")
    assert [tuple(ready.tensor.shape) for ready, _ in prepared(paths, preprocessing)] == [(3, 211, 317), (3, 149, 98)]
    with pytest.raises(InputError, match="149 x 98 and 211 x 317") as caught:
        load_batch(paths, preprocessing)
    assert "--size 149,98" in caught.value.hint


def test_the_file_is_named_where_a_picture_cannot_be_prepared(tmp_path):
    Image.new("RGB", (40_000, 1)).save(tmp_path / "thread.png")
    with pytest.raises(InputError, match=r"^thread\.png: "):
        load_batch([tmp_path / "thread.png"], chosen("resnet18"))
