"""Pictures of gradcam: where a map falls on a photo, whose scale it has, what is said where there is nothing, and the raw numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from netlens.cli.arrays import Arrays, is_ours
from netlens.drawing import gallery as drawing
from netlens.drawing.canvas import Canvas
from netlens.drawing.colours import palette
from netlens.drawing.gallery import APART, BELOW, Card, arranged
from netlens.drawing.overlay import ALPHA, Backdrop, Outline
from netlens.drawing.tiles import TALLEST, WIDEST
from netlens.errors import FileProblem
from netlens.lenses.gradcam import figures
from netlens.lenses.gradcam.album import Scene, draw, write_raw
from netlens.lenses.gradcam.choices import METHODS
from netlens.lenses.gradcam.figures import middle_frame
from netlens.lenses.gradcam.report import Class, Heatmap
from netlens.loading.images import open_image
from netlens.loading.preprocessing import Framing, Preprocessing, preprocess
from netlens.parts import Picture
from tests.conftest import REPOSITORY
from tests.lenses.gradcam_case import LYNX, TABBY, TIGER, heat, report

SCENES = REPOSITORY / "sample_models" / "scenes"
RED, MAGENTA = (200, 40, 40), (255, 0, 255)  # a photo, and what it is in grey: 0.299 x 200 + 0.587 x 40 + 0.114 x 40 = 87.84
RED_IN_GREY = 88


class Folder:
    """Keeps pictures instead of writing them."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.reserved: list[str] = []
        self.preferred: list[str] = []
        self.images: dict[str, Image.Image] = {}

    def reserve(self, names: Iterable[str]) -> None:
        self.reserved += names

    def save(self, name: str, image: Image.Image, *, page: int = 1, prefer: bool = False, **facts: str) -> str:
        file = name if page == 1 else f"{name}-{page}"
        assert name in self.reserved and file not in self.images and (page == 1 or f"{name}{f'-{page - 1}' * (page > 2)}" in self.images)
        self.names += [name] if page == 1 else []
        self.preferred += [file] if prefer else []
        self.images[file] = image
        return file


def found(raw: np.ndarray, **changes: Any) -> Heatmap:
    """Return the report of a map, its numbers counted here."""
    finite = raw[np.isfinite(raw)].tolist()
    numbers = {"least": min(finite, default=None), "greatest": max(finite, default=None), "shape": raw.shape}
    return heat(**{**numbers, "positive": float((raw > 0).mean()), **changes})


def drawn(
    entries: Sequence[tuple[np.ndarray, dict[str, Any]]], scenes: Sequence[Scene], *, common: bool = False
) -> tuple[Folder, list[Picture]]:
    """Draw maps, each with what the report says about it."""
    folder, steps = Folder(), []
    facts = report(*(found(raw, **changes) for raw, changes in entries))
    maps = {index: raw for index, (raw, _) in enumerate(entries)}
    pictures = list(draw(facts, maps, scenes, title="resnet18", common=common, folder=folder, step=lambda: steps.append(1)))
    assert sorted(folder.names) == sorted(folder.reserved), "what is reserved is written, and nothing else"
    assert len(steps) == len({changes.get("sample", 0) for _, changes in entries})
    assert [(picture.width, picture.height) for picture in pictures] == [image.size for image in folder.images.values()]
    return folder, pictures


def one_hot(y: int, x: int, size: tuple[int, int] = (7, 7), value: float = 2.0) -> np.ndarray:
    raw = np.zeros(size, np.float32)
    raw[y, x] = value
    return raw


def plain(height: int, width: int, colour: tuple[int, int, int] = RED) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def panels(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Cut the photo and the map out of a page with one of each; the photo is red, also where it is pale."""
    page = np.asarray(image.convert("RGB")).astype(int)
    pale = tuple(int(np.rint(channel + 0.55 * (255 - channel))) for channel in RED)
    photo = np.argwhere((page == RED).all(-1) | (page == pale).all(-1))
    (top, left), (bottom, right) = photo.min(0), photo.max(0) + 1
    across, down = right - left + APART, 0
    if right + across > page.shape[1]:  # a wide one has its map below
        across, down = 0, bottom - top + BELOW + 2
    return page[top:bottom, left:right], page[top + down : bottom + down, left + across : right + across]


def hottest(pixels: np.ndarray) -> tuple[float, float]:
    """Return where colour is strongest, down and across, in pixels; nothing else on a grey photo is coloured."""
    colour = (pixels.max(-1) - pixels.min(-1)).astype(float)
    return tuple(np.argwhere(colour >= colour.max() - 1).mean(0) + 0.5)


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what is written on pictures."""
    lines: list[str] = []
    write = Canvas.write

    def recorded(self: Canvas, x: int, y: int, text: str, *rest: Any) -> None:
        lines.append(text)
        write(self, x, y, text, *rest)

    monkeypatch.setattr(Canvas, "write", recorded)
    return lines


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[Card]]]:
    """Collect the pictures of each page, and its columns."""
    kept: list[tuple[int, list[Card]]] = []
    gallery: Callable[..., Image.Image] = drawing.gallery

    def recorded(captions: Any, shown: Sequence[Card], columns: int, **more: Any) -> Image.Image:
        kept.append((columns, list(shown)))
        return gallery(captions, shown, columns, **more)

    monkeypatch.setattr(figures, "gallery", recorded)
    return kept


# --- Where a map falls


@pytest.mark.parametrize(("height", "width"), [(400, 300), (300, 400), (3000, 4000), (120, 400)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_hottest_place_lies_on_the_right_pixel_of_the_photo(tmp_path, height, width, orientation):
    """The shorter side becomes 64, the middle 56 x 56 are seen, and a map of 7 x 7 has cells of 8: all by hand, also for a turned photo."""
    upright = Image.fromarray(plain(height, width))
    stored = upright.rotate(90, expand=True) if orientation == 6 else upright  # 6: turn it clockwise to see it
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)
    framing = Framing("shorter", (64, 64), (56, 56))
    prepared = preprocess(open_image(tmp_path / "photo.png").image, Preprocessing(framing, (0.0,) * 3, (1.0,) * 3, ""))
    folder, _ = drawn([(one_hot(1, 5), {})], [Scene(tmp_path / "photo.png", box=prepared.geometry.box)])

    cell = min(height, width) / 8  # of 64 pixels
    y, x = height / 2 + (1.5 - 3.5) * cell, width / 2 + (5.5 - 3.5) * cell
    photo, heated = panels(folder.images["photo"])
    assert heated.shape == photo.shape
    assert photo.shape[0] / photo.shape[1] == pytest.approx(height / width, rel=0.02)
    found_y, found_x = hottest(heated)
    assert (found_y / photo.shape[0], found_x / photo.shape[1]) == pytest.approx((y / height, x / width), abs=0.012)


def test_what_the_network_does_not_see_is_pale_and_said_to_be(texts):
    folder, _ = drawn([(one_hot(3, 3), {})], [Scene(seen=plain(100, 200), box=(50, 0, 150, 100))])
    photo, heated = panels(folder.images["cat.png"])
    seen = (photo == RED).all(-1)
    assert seen.sum() == pytest.approx(photo[..., 0].size / 2, rel=0.02) and seen[:, seen.shape[1] // 2].all()
    outside = np.rint(RED_IN_GREY + 0.55 * (255 - RED_IN_GREY))
    assert (heated[:, 2] == outside).all() and (heated[:, -2] == outside).all()
    assert any("pale: outside of what the network saw" in line for line in texts)
    texts.clear()
    drawn([(one_hot(3, 3), {})], [Scene(seen=plain(100, 200))])
    assert not any("pale" in line for line in texts)


def test_a_thin_photo_that_is_rounded_to_whole_pixels_takes_its_boxes_along():
    small = Backdrop.of(plain(3, 100), (0, 0, 100, 3), [((50, 1.5, 100, 3), False)], (50, 50))
    assert small.photo.size == (50, 2)  # 1.5 pixels are 2: half as wide, two thirds as tall
    assert (small.box, small.outlines) == ((0, 0, 50, 2), (((25, 1, 50, 2), False),))


def test_boxes_are_outlined_and_those_of_other_classes_dashed(texts):
    outlines: tuple[Outline, ...] = (((10, 20, 30, 50), False), ((60, 5, 95, 45), True))
    folder, _ = drawn([(np.full((2, 2), -1.0, np.float32), {})], [Scene(seen=plain(100, 100, (90, 90, 90)), outlines=outlines)])
    page = np.asarray(folder.images["cat.png"])
    dark = np.argwhere((page == 90).all(-1))
    top, left = dark.min(0)
    for panel in (0, 1):  # each enlarged five times, 16 pixels apart
        x, y = left + panel * (500 + APART), top
        solid = [page[y + 20 * 5, x + 10 * 5 : x + 30 * 5], page[y + 20 * 5 : y + 50 * 5, x + 30 * 5 - 1]]
        assert all((line == 255).all() for line in solid)
        dashes = (page[y + 5 * 5, x + 60 * 5 : x + 95 * 5] == 255).all(-1)
        assert 0.4 < dashes.mean() < 0.6 and (page[y + 5 * 5, x + 60 * 5 : x + 95 * 5][~dashes] == 24).all()
    assert any("dashed: of other classes" in line for line in texts)


# --- Colours


def test_each_map_has_its_own_scale_or_all_have_one(texts):
    """On black, the middle of a plateau is the colour of its share of the limit, as opaque as that share."""
    plateau = np.pad(np.ones((3, 3), np.float32), 2)
    entries = [(plateau * value, {"sample": sample}) for sample, value in enumerate((2.0, 0.5))]
    scenes = [Scene(seen=plain(70, 70, (0, 0, 0)))] * 2
    for common, shares in ((False, (1, 1)), (True, (1, 0.25))):
        folder, pictures = drawn(entries, scenes, common=common)
        for name, share in zip(("cat.png", "cat1.png"), shares, strict=True):
            page = np.asarray(folder.images[name]).astype(int)
            black = np.argwhere((page == 0).all(-1))
            (top, left), (bottom, right) = black.min(0), black.max(0) + 1
            centre = page[(top + bottom) // 2, left + (right - left) * 3 // 4 + 4]
            np.testing.assert_allclose(centre, share * ALPHA * palette(False)[round(238 * share)].astype(float), atol=1)
        assert {picture.scale for picture in pictures} == ({"0 to 2, common"} if common else {"each map its own"})
    assert "each map its own scale" in " ".join(texts) and "one scale for all maps of a method" in " ".join(texts)


def test_negative_numbers_are_transparent_and_what_is_not_finite_is_magenta(texts):
    raw = one_hot(0, 0, (2, 2))
    raw[0, 1], raw[1, 1] = -5, np.nan
    folder, _ = drawn([(raw, {"method": "hirescam"})], [Scene(seen=plain(64, 64))])
    _, heated = panels(folder.images["cat.png"])
    half = len(heated) // 2
    assert (heated[half:, half:] == MAGENTA).all()
    assert (heated[: half // 4, -half // 4 :] == RED_IN_GREY).all()
    assert "not drawn: negative numbers, down to −5 · magenta: NaN or infinite" in texts


# --- Words


@pytest.mark.parametrize(
    ("raw", "facts", "words"),
    [
        (np.full((3, 3), -0.5), {}, "no positive evidence"),
        (np.zeros((3, 3)), {"dead": True, "gradient": 0.1}, "0: the layer is dead"),
        (np.zeros((3, 3)), {"gradient": 0.0}, "0: the gradient is 0"),
        (np.zeros((3, 3)), {}, "0 everywhere"),
        (np.full((3, 3), np.nan), {}, "NaN or infinite everywhere"),
        (np.full((1, 1), 0.5), {}, "the same everywhere"),
    ],
)
def test_a_map_that_shows_no_place_says_why(texts, raw, facts, words):
    folder, _ = drawn([(raw.astype(np.float32), facts)], [Scene(seen=plain(64, 64))])
    assert words in texts
    if not (raw > 0).any() and np.isfinite(raw).all():
        page = np.asarray(folder.images["cat.png"]).astype(int)
        coloured = (page.max(-1) != page.min(-1)) & ~(page == RED).all(-1)
        assert not coloured.any(), "neither a map nor a colour bar"


def test_a_page_names_class_probability_method_layer_and_extreme(texts):
    drawn([(one_hot(2, 2, value=0.0123), {"target": TABBY, "layers": ("layer3", "layer4")})], [Scene(seen=plain(64, 64))])
    assert texts[:2] == ["tabby · 61.2 % · Grad-CAM", "resnet18 · cat.png · layer3 + layer4 (fused), 7 × 7 · top prediction"]
    assert {"0", "0.0123", "positive part of the raw map"} < set(texts)
    texts.clear()
    drawn([(one_hot(2, 2), {"target": Class(7, None, -3.25, None)})], [Scene(seen=plain(64, 64))])
    assert texts[0] == "class 7 · score -3.25 · Grad-CAM"


def test_equal_and_class_blind_maps_are_marked(cards):
    entries = [
        (one_hot(1, 1, value=1.0), {}),
        (one_hot(1, 1, value=49.0), {"method": "hirescam", "equals": "gradcam"}),
        (one_hot(1, 1, value=3.0), {"method": "eigencam"}),
        (one_hot(1, 1, value=4.0), {"method": "legrad", "layers": ()}),
    ]
    drawn(entries, [Scene(seen=plain(64, 64))])
    ((_, shown),) = cards
    assert [card.title for card in shown] == ["cat.png", "Grad-CAM", "HiResCAM", "Eigen-CAM", "LeGrad"]
    assert [card.note for card in shown[1:]] == ["max 1", "= Grad-CAM · max 49", "class-blind · max 3", "the whole network · max 4"]


def test_a_class_blind_map_is_not_called_a_class(texts):
    drawn([(one_hot(1, 1), {"method": "eigencam"})], [Scene(seen=plain(64, 64))])
    assert texts[:2] == ["Eigen-CAM · the same for every class", "resnet18 · cat.png · layer4, 7 × 7"]


# --- Several methods and targets


def of(targets: Sequence[Class], methods: Sequence[str]) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """Return a map for each pair, hottest at (row of the target, column of the method)."""
    return [
        (one_hot(y, x, (14, 14)), {"target": target, "method": method})
        for y, target in enumerate(targets)
        for x, method in enumerate(methods)
    ]


def cell_of(card: Card) -> tuple[int, int]:
    """Return the cell of a map of 14 x 14 that is hottest."""
    y, x = hottest(card.picture.astype(int))
    return int(y / card.picture.shape[0] * 14), int(x / card.picture.shape[1] * 14)


def test_targets_are_rows_and_methods_columns(cards):
    drawn(of((TABBY, TIGER, LYNX), ("gradcam", "layercam")), [Scene(seen=plain(64, 64))])
    ((columns, shown),) = cards
    assert columns == 3 and [card.title for card in shown[::3]] == ["tabby · 61.2 %", "tiger cat · 22.5 %", "lynx · 3.9 %"]
    for row in range(3):
        photo, *maps = shown[3 * row : 3 * row + 3]
        assert (photo.picture == RED).all()
        assert [cell_of(card) for card in maps] == [(row, 0), (row, 1)]
        assert [card.title for card in maps] == ["Grad-CAM", "LayerCAM"]


def test_what_was_asked_is_said_once(cards):
    """A target asked for by its own name or number needs no second line; a row for each, and the photo before it."""
    maps = [
        (one_hot(1, 1), {"target": TABBY, "asked": text, "method": method})
        for text in ("Tabby", "281")
        for method in ("gradcam", "layercam")
    ]
    maps += [(one_hot(1, 1), {"target": TIGER, "asked": "prediction 2", "method": method}) for method in ("gradcam", "layercam")]
    drawn(maps, [Scene(seen=plain(64, 64))])
    ((_, shown),) = cards
    assert [(card.title, card.note) for card in shown[::3]] == [
        ("tabby · 61.2 %", ""),
        ("tabby · 61.2 %", ""),
        ("tiger cat · 22.5 %", "prediction 2"),
    ]


def test_a_method_without_a_map_of_a_target_leaves_its_place_free(cards):
    drawn(of((TABBY, TIGER), ("gradcam", "layercam"))[:3], [Scene(seen=plain(64, 64))])
    ((_, shown),) = cards
    assert [card.title for card in shown] == ["tabby · 61.2 %", "Grad-CAM", "LayerCAM", "tiger cat · 22.5 %", "Grad-CAM", ""]


def test_many_targets_are_several_pages_of_equal_length(cards):
    targets = [Class(index, f"c{index}", 1.0, 0.5) for index in range(8)]
    folder, _ = drawn(of(targets, ("gradcam", "layercam")), [Scene(seen=plain(64, 64))])
    assert list(folder.images) == ["cat.png", "cat.png-2"]
    assert [len(shown) for _, shown in cards] == [12, 12]
    assert [card.title for _, shown in cards for card in shown[::3]] == [f"c{index} · 50.0 %" for index in range(8)]


def test_several_targets_by_one_method_stand_side_by_side(cards, texts):
    drawn(of((TABBY, TIGER), ("gradcam",)), [Scene(seen=plain(64, 64))])
    ((_, shown),) = cards
    assert [card.title for card in shown] == ["cat.png", "tabby · 61.2 %", "tiger cat · 22.5 %"]
    assert [cell_of(card) for card in shown[1:]] == [(0, 0), (1, 0)] and texts[0] == "cat.png · Grad-CAM"


@pytest.mark.parametrize("shape", [(64, 64), (300, 400), (30, 900), (900, 30), (1, 1)])
def test_all_methods_have_one_page_for_each_target(cards, shape):
    folder, pictures = drawn(of((TABBY, TIGER), tuple(METHODS)), [Scene(seen=plain(*shape))])
    assert list(folder.images) == ["cat.png", "cat.png-2"] and folder.preferred == ["cat.png"]
    for row, (_, shown) in enumerate(cards):
        assert [card.title for card in shown[1:]] == [method.title for method in METHODS.values()]
        if min(shape) > 60:
            assert [cell_of(card) for card in shown[1:]] == [(row, column) for column in range(12)]
    assert all(picture.width <= WIDEST and picture.height <= TALLEST for picture in pictures)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 13, 56])
@pytest.mark.parametrize("shape", [(64, 64), (3000, 4000), (20, 2000), (2000, 20)])
def test_pictures_fit_their_page(count, shape):
    columns, (height, width) = arranged(count, shape)
    assert columns * (max(width, drawing.NARROW) + APART) - APART <= drawing.ROOM and -(-count // columns) * height <= drawing.TALL
    assert height >= 1 and width >= 1


# --- Folders of photos


def test_a_folder_has_a_page_for_each_photo_and_sheets_that_are_equally_full(cards, texts):
    files = (sorted(SCENES.glob("*.png")) * 5)[:58]
    entries = [(one_hot(place % 8, 3, (8, 8)), {"sample": place, "target": Class(place, None, 1.0, 0.5)}) for place in range(58)]
    folder, pictures = drawn(entries, [Scene(seen=np.asarray(Image.open(file).convert("RGB"))) for file in files])
    assert [name for name in folder.images if name.startswith("sheet")] == ["sheet", "sheet-2"] and folder.preferred == ["sheet"]
    sheets = [shown for _, shown in cards if len(shown) > 2]
    assert [len(shown) for shown in sheets] == [29, 29] and len(cards) == 60
    assert [card.note for shown in sheets for card in shown] == [f"class {place} · 50.0 %" for place in range(58)]
    for place, card in enumerate(card for shown in sheets for card in shown):
        y, x = (np.argwhere(warm(card)).mean(0) + 0.5) / card.picture.shape[:2] * 8
        assert (y, x) == pytest.approx((place % 8 + 0.5, 3.5), abs=0.6)
    assert "page 1 of 2" in " ".join(texts) and all(picture.width <= WIDEST and picture.height <= TALLEST for picture in pictures)


def warm(card: Card) -> np.ndarray:
    pixels = card.picture.astype(int)
    return (pixels[..., 1] - pixels[..., 2]) > 100  # yellow: of the upper end of the colours alone


def test_each_method_has_a_sheet(cards):
    entries = [(one_hot(1, 1), {"sample": sample, "method": method}) for sample in range(2) for method in ("gradcam", "gradcam++")]
    folder, _ = drawn(entries, [Scene(seen=plain(64, 64)), Scene(seen=plain(90, 40))])
    assert [name for name in folder.images if "sheet" in name] == ["sheet-gradcam", "sheet-gradcampp"]
    assert [card.title for card in cards[-1][1]] == ["cat.png", "cat1.png"]


def test_a_photo_is_named_after_its_file_and_opened_upright(tmp_path):
    stored = Image.fromarray(np.concatenate([plain(40, 30, (255, 0, 0)), plain(40, 30, (0, 0, 255))], axis=1))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    stored.save(tmp_path / "my cat.png", exif=exif)
    folder, _ = drawn([(one_hot(0, 0), {})], [Scene(tmp_path / "my cat.png")])
    page = np.asarray(folder.images["my cat"])
    red, blue = (np.argwhere((page == colour).all(-1)).mean(0) for colour in ((255, 0, 0), (0, 0, 255)))
    assert blue[1] < red[1], "what was stored at the right is at the left"


# --- Films, and what is no picture


def test_a_film_is_a_row_of_frames_over_a_row_for_each_method(cards):
    frames = np.stack([np.full((60, 60, 3), 10 * frame, np.uint8) for frame in range(16)])
    slow, fast = (np.stack([one_hot(3, place, (8, 8)) for place in range(count)]) for count in (4, 8))
    drawn([(slow, {}), (fast, {"method": "layercam"})], [Scene(seen=frames)])
    ((columns, shown),) = cards
    middles = [1, 3, 5, 7, 9, 11, 13, 15]  # of eight parts of two frames
    assert columns == 8 and [card.title for card in shown] == [
        *(f"frame {frame}" for frame in middles),
        "Grad-CAM",
        *[""] * 7,
        "LayerCAM",
        *[""] * 7,
    ]
    for part, frame in enumerate(middles):
        ground, first, second = (shown[row * 8 + part].picture for row in range(3))
        assert (ground == 10 * frame).all() and (first[-1, -1] == 10 * frame).all() and (second[-1, -1] == 10 * frame).all()
        across = [hottest(picture.astype(int))[1] / picture.shape[1] * 8 for picture in (first, second)]
        assert across == pytest.approx([part // 2 + 0.5, part + 0.5], abs=0.3)


@pytest.mark.parametrize(("parts", "frames", "expected"), [(4, 16, [2, 6, 10, 14]), (3, 3, [0, 1, 2]), (2, 1, [0, 0]), (1, 9, [4])])
def test_a_slice_of_time_is_shown_on_its_middle_frame(parts, frames, expected):
    assert [middle_frame(part, parts, frames) for part in range(parts)] == expected


@pytest.mark.parametrize(("size", "pages"), [((8, 8), 1), ((50,), 1), ((3, 8, 8), 2)])
def test_without_a_picture_maps_are_tiles(texts, size, pages):
    """The slices of a film have one scale, so each film has its own page."""
    raw = np.zeros(size, np.float32)
    raw[(1,) * len(size)] = 4
    raw[(0,) * len(size)] = -1
    folder, _ = drawn([(raw, {}), (raw * 2, {"method": "layercam"})], [Scene()])
    page = np.asarray(folder.images["cat.png"].convert("RGB"))
    top, bottom = ((page == palette(False)[index]).all(-1).sum() for index in (238, 0))
    assert bottom / top == pytest.approx(raw.size - 1, rel=0.1), "one number is at the end of the scale, the others are 0"
    assert len(folder.images) == pages and {"1": "Grad-CAM", "2": "tabby · 61.2 % · LayerCAM"}[str(pages)] in texts


def test_the_bar_of_positive_parts_speaks_of_no_absolute_value(texts):
    drawn([(np.float32([1, 0, 3]), {}), (np.float32([2, 0, 9]), {"method": "layercam"})], [Scene()])
    assert "positive part · max: largest value of each tile" in texts


def test_one_map_for_a_whole_film_says_so(texts):
    """The middle one of 5 frames, and a name without the endings of the pictures."""
    facts = report(found(np.ones((1, 2, 2), np.float32)))
    facts = replace(facts, shots=(replace(facts.shots[0], name="p0.jpg to p4.jpeg"),))
    folder = Folder()
    scene = Scene(seen=np.zeros((5, 8, 8, 3), np.uint8))
    list(draw(facts, {0: np.ones((1, 2, 2), np.float32)}, [scene], title="", common=False, folder=folder, step=lambda: None))
    assert folder.names == ["p0 to p4"]
    assert {"frame 2", "maps serve all 5 frames", "shown: what the network saw of each frame, 8 × 8"} <= set(texts)


def test_tiles_of_several_methods_keep_one_scale_each_if_it_is_common(texts):
    entries = [(one_hot(1, 1, value=value), {"method": method}) for method, value in (("gradcam", 2.0), ("layercam", 50.0))]
    folder, _ = drawn(entries, [Scene()], common=True)
    assert list(folder.images) == ["cat.png", "cat.png-2"] and {"2", "50"} < set(texts)


# --- Raw numbers


def arrays(out: Path, overwrite: bool = False) -> Arrays:
    return Arrays("gradcam", "resnet18", out=out, overwrite=overwrite)


def test_raw_numbers_are_what_numpy_reads(tmp_path):
    first, second = np.float32([[-1.5, 2.25], [np.nan, 1e-30]]), np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    facts = report(found(first), found(second, method="gradcam++"), found(second, target=TIGER))
    written = write_raw(facts, {0: first, 1: second}, [Scene(Path("photos/tom.jpg"))], arrays(tmp_path / "new"))
    names = ["gradcam-resnet18-tom-tabby-gradcam.npy", "gradcam-resnet18-tom-tabby-gradcampp.npy"]
    assert [each.file for each in written.maps] == [*(str(tmp_path / "new" / name) for name in names), None]
    for name, raw in zip(names, (first, second), strict=True):
        read = np.load(tmp_path / "new" / name, allow_pickle=False)
        assert read.dtype == np.float32 and read.flags.c_contiguous
        np.testing.assert_array_equal(read, raw.astype(np.float32))
        np.testing.assert_array_equal(np.load(tmp_path / "new" / name, mmap_mode="r"), read)
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == sorted(names)


@pytest.mark.parametrize("shape", [(7,), (1, 1), (14, 14), (8, 7, 7), ()])
def test_our_own_file_is_replaced_and_what_numpy_wrote_is_not(tmp_path, shape):
    values, path = np.ones(shape, np.float32), tmp_path / "gradcam-resnet18-a.npy"
    arrays(tmp_path).save("a", values)
    assert is_ours(path)
    again = arrays(tmp_path)
    again.reserve(["a"])
    again.save("a", values * 2)
    assert (np.load(path) == 2).all()
    np.save(path, values * 3)
    assert not is_ours(path)
    with pytest.raises(FileProblem, match="was not written by netlens") as refused:
        arrays(tmp_path).reserve(["a"])
    assert "--overwrite" in refused.value.hint
    with pytest.raises(FileProblem):
        arrays(tmp_path).save("a", values)
    assert (np.load(path) == 3).all() and len(list(tmp_path.iterdir())) == 1
    arrays(tmp_path, overwrite=True).save("a", values)
    assert (np.load(path) == 1).all() and is_ours(path)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"text" * 300])
def test_anything_else_is_not_ours(tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    assert not is_ours(tmp_path / "x.npy")


def test_links_and_folders_are_never_replaced(tmp_path):
    (tmp_path / "elsewhere.npy").write_bytes(b"kept")
    (tmp_path / "gradcam-resnet18-a.npy").symlink_to(tmp_path / "elsewhere.npy")
    (tmp_path / "gradcam-resnet18-b.npy").mkdir()
    for name in "ab":
        with pytest.raises(FileProblem, match="is no regular file"):
            arrays(tmp_path, overwrite=True).save(name, np.ones(3))
    assert (tmp_path / "elsewhere.npy").read_bytes() == b"kept"


def test_what_was_written_is_told(tmp_path, capsys):
    few, many = arrays(tmp_path), arrays(tmp_path)
    few.save("a", np.ones(1))
    for place in range(9):
        many.save(f"b{place}", np.ones(1))
    few.finish()
    many.finish()
    told = " ".join(capsys.readouterr().err.split())
    assert f"wrote {tmp_path}/gradcam-resnet18-a.npy" in told and "wrote 9 files of raw numbers" in told
