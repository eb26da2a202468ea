"""How far a map can be believed: every number against its definition, written as plain loops in float64, or a closed form."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from netlens.lenses.gradcam import worth as module
from netlens.lenses.gradcam.report import Worth
from netlens.lenses.gradcam.worth import BLUR, NOISE, SHARES, area, blurred, energy, imputed, pointing, ranks, worth
from sample_models import scenes, sick

HEIGHT, WIDTH = 14, 10
GENERATOR = torch.Generator().manual_seed(4)
PICTURE = torch.randn(3, HEIGHT, WIDTH, generator=GENERATOR)
HEAT = torch.randn(HEIGHT, WIDTH, generator=GENERATOR)  # signed, and no two numbers are equal
WEIGHTS = torch.randn(3, HEIGHT, WIDTH, generator=GENERATOR) / 10


def probability(pictures: Tensor) -> Tensor:
    """A network of one neuron."""
    return torch.sigmoid((pictures * WEIGHTS).sum((1, 2, 3)))


def slow_probability(picture: np.ndarray) -> float:
    return float(1 / (1 + np.exp(-(picture * WEIGHTS.double().numpy()).sum())))


# --- The definitions, slowly


def slow_order(heat: Tensor) -> list[tuple[int, int]]:
    return sorted(np.ndindex(*heat.shape), key=lambda place: -float(heat[place]))


def slow_curve(start: np.ndarray, finish: np.ndarray, steps: int) -> float:
    """The area under the probability while pixels of `finish` replace those of `start`, the most important first."""
    order, picture = slow_order(HEAT), start.copy()
    curve, done = [slow_probability(picture)], 0
    for step in range(1, steps + 1):
        until = round(step * len(order) / steps)
        for row, column in order[done:until]:
            picture[:, row, column] = finish[:, row, column]
        done = until
        curve.append(slow_probability(picture))
    return sum((left + right) / 2 / steps for left, right in pairwise(curve))


def slow_blur(picture: np.ndarray) -> np.ndarray:
    """A Gaussian in two dimensions, cut at three standard deviations; beyond its border the picture goes on as it ends."""
    sigma = BLUR * min(picture.shape[1:])
    reach = int(3 * sigma) + 1
    found, total = np.zeros_like(picture), 0.0
    rows, columns = np.arange(picture.shape[1]), np.arange(picture.shape[2])
    for down in range(-reach, reach + 1):
        for across in range(-reach, reach + 1):
            weight = np.exp(-(down**2 + across**2) / (2 * sigma**2))
            near = np.clip(rows + down, 0, rows[-1])[:, None], np.clip(columns + across, 0, columns[-1])
            found += weight * picture[:, near[0], near[1]]
            total += weight
    return found / total


def slow_imputed(picture: np.ndarray, missing: set[tuple[int, int]]) -> np.ndarray:
    """ROAD's equations, one for each missing pixel, solved with a dense matrix."""
    places = sorted(missing)
    matrix, right = np.zeros((len(places), len(places))), np.zeros((len(places), len(picture)))
    for number, (row, column) in enumerate(places):
        for down, across in [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)]:
            near = (row + down, column + across)
            if not (0 <= near[0] < picture.shape[1] and 0 <= near[1] < picture.shape[2]):
                continue
            weight = 1 / 6 if 0 in (down, across) else 1 / 12
            matrix[number, number] += weight
            if near in missing:
                matrix[number, places.index(near)] -= weight
            else:
                right[number] += weight * picture[:, near[0], near[1]]
    filled = picture.copy()
    for place, values in zip(places, np.linalg.solve(matrix, right), strict=True):
        filled[:, place[0], place[1]] = values
    return filled


def slow_road() -> float:
    picture, order = PICTURE.double().numpy(), slow_order(HEAT)
    found = []
    for share in SHARES:
        count = round(share * len(order))
        most = slow_probability(slow_imputed(picture, set(order[:count])))
        least = slow_probability(slow_imputed(picture, set(order[::-1][:count])))
        found.append((least - most) / 2)
    return sum(found) / len(found)


def test_every_number_is_its_definition(monkeypatch):
    monkeypatch.setattr(module, "NOISE", 0.0)
    picture, shown = PICTURE.double().numpy(), np.maximum(HEAT.double().numpy(), 0)
    before, after = slow_probability(picture), slow_probability(picture * shown / shown.max())
    box = (2.0, 3.0, 7.0, 9.0)
    inside = shown[3:9, 2:7]

    found = worth(HEAT, PICTURE, probability, [box], steps=9)

    assert found.deletion == pytest.approx(slow_curve(picture, np.zeros_like(picture), 9), abs=1e-6)
    assert found.insertion == pytest.approx(slow_curve(slow_blur(picture), picture, 9), abs=1e-6)
    assert found.average_drop == pytest.approx(max(0, before - after) / before, abs=1e-6)
    assert found.increase == float(after > before)
    assert found.road == pytest.approx(slow_road(), abs=1e-5)
    assert found.pointing == float(shown.max() == inside.max())
    assert found.energy == pytest.approx(inside.sum() / shown.sum(), abs=1e-6)


def test_a_drop_and_an_increase_exclude_each_other():
    def brightness(pictures: Tensor) -> Tensor:
        return pictures.mean((1, 2, 3))

    heat = torch.eye(4)
    dark, bright = torch.full((3, 4, 4), -0.5), torch.full((3, 4, 4), 0.5)
    fallen = worth(heat, bright, brightness)  # 0.5 of 16 pixels becomes 0.5 of 4
    assert (fallen.average_drop, fallen.increase) == (0.75, 0.0)
    assert worth(heat, dark, brightness).average_drop is None  # of nothing, nothing can be lost
    grown = worth(heat, dark, lambda pictures: 1 + pictures.mean((1, 2, 3)))
    assert (grown.average_drop, grown.increase) == (0.0, 1.0)


# --- Closed forms


@pytest.mark.parametrize("steps", [1, 4, 35])
def test_the_areas_of_a_network_that_sees_one_pixel(steps):
    """Its probability falls, or rises, at once where the map begins with that pixel; in the last step where it ends with it."""
    picture = torch.zeros(1, HEIGHT, WIDTH)
    picture[0, 6, 5] = 1
    start = float(blurred(picture)[0, 6, 5])
    sigma = BLUR * WIDTH
    weights = np.exp(-(np.arange(-2, 3) ** 2) / (2 * sigma**2))  # the kernel; 3 sigma are 1.9 pixels
    assert start == pytest.approx((1 / weights.sum()) ** 2, rel=1e-5)

    heat = torch.rand(HEIGHT, WIDTH, generator=GENERATOR)
    for place, at_once in ((2.0, True), (-1.0, False)):
        heat[6, 5] = place
        found = worth(heat, picture, lambda pictures: pictures[:, 0, 6, 5], steps=steps)
        half = 1 / (2 * steps)
        assert found.deletion == pytest.approx(half if at_once else 1 - half)
        assert found.insertion == pytest.approx(start + (1 - start) * (1 - half if at_once else half))


def test_the_areas_of_a_network_that_averages():
    """Of equal pixels each takes its share away, in any order; and a picture of one colour is not changed by blurring it."""
    found = worth(HEAT, torch.ones(3, HEIGHT, WIDTH), lambda pictures: pictures.mean((1, 2, 3)), steps=7)
    assert (found.deletion, found.insertion, found.road) == (pytest.approx(0.5), pytest.approx(1), pytest.approx(0, abs=1e-3))


def test_the_trapezoid_rule():
    assert area([1, 0]) == 0.5
    assert area([(step / 10) ** 2 for step in range(11)]) == pytest.approx(1 / 3 + 1 / 600)  # + h^2 (f'(1) - f'(0)) / 12


@pytest.mark.parametrize("size", [(9, 12), (64, 40)])
def test_imputing_gives_back_what_is_linear(size):
    """A plane is the mean of its neighbours everywhere: pixels taken out of it, but for the border, come back."""
    rows, columns = torch.meshgrid(*(torch.arange(float(length)) for length in size), indexing="ij")
    plane = torch.stack([rows / size[0], 2 - columns / size[1]])
    missing = torch.zeros(3, *size, dtype=torch.bool)
    missing[0, 1:-1, 1:-1] = True  # all within a frame
    missing[1, 3:6, 2:8] = True
    assert not missing[2].any()
    torch.testing.assert_close(imputed(plane, missing), plane.expand(3, *plane.shape), atol=2e-3, rtol=0)


def test_imputing_leaves_what_is_known_and_solves_the_equations_at_the_border():
    missing = ranks(HEAT)[None] < torch.tensor([20, 126, 139])[:, None, None]
    found = imputed(PICTURE, missing)
    for filled, gone in zip(found, missing, strict=True):
        assert torch.equal(filled[:, ~gone], PICTURE[:, ~gone])
        expected = slow_imputed(PICTURE.double().numpy(), {(int(row), int(column)) for row, column in gone.nonzero()})
        np.testing.assert_allclose(filled.numpy(), expected, atol=1e-3)


def test_imputing_runs_in_one_thread_and_leaves_torch_with_as_many_as_before(monkeypatch):
    threads, solve = [], module._solved
    monkeypatch.setattr(module, "_solved", lambda *asked: threads.append(torch.get_num_threads()) or solve(*asked))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        imputed(PICTURE, torch.eye(HEIGHT, dtype=torch.bool)[None, :, :WIDTH])
        assert set(threads) == {1} and torch.get_num_threads() == 2
        with pytest.raises(RuntimeError):
            imputed(PICTURE, torch.ones(1, 2, 3, dtype=torch.bool))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_road_adds_noise_to_what_it_imputes_and_to_nothing_else():
    seen: list[Tensor] = []
    worth(HEAT, PICTURE, lambda pictures: seen.extend(pictures) or probability(pictures))
    order = slow_order(HEAT)
    noise = []
    for number, picture in enumerate(seen[-2 * len(SHARES) :]):
        count = round(SHARES[number // 2] * len(order))
        gone = order[-count:] if number % 2 else order[:count]
        missing = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
        missing[tuple(zip(*gone, strict=True))] = True
        assert torch.equal(picture[:, ~missing], PICTURE[:, ~missing])
        noise.append((picture - imputed(PICTURE, missing[None])[0])[:, missing].flatten())
    assert torch.cat(noise).std() == pytest.approx(NOISE, rel=0.05)  # of 2600 numbers


# --- On the object


def boxed(*boxes: tuple[int, int, int, int]) -> Tensor:
    heat = torch.zeros(HEIGHT, WIDTH)
    for left, top, right, bottom in boxes:
        heat[top:bottom, left:right] = 1
    return heat


def test_a_map_that_is_the_box_scores_one():
    assert (pointing(boxed((2, 3, 7, 9)), [(2, 3, 7, 9)]), energy(boxed((2, 3, 7, 9)), [(2, 3, 7, 9)])) == (1, 1)
    assert (pointing(boxed((2, 3, 7, 9)), [(7, 3, 9, 9)]), energy(boxed((2, 3, 7, 9)), [(7, 3, 9, 9)])) == (0, 0)


def test_two_boxes_count_as_one_area():
    heat = boxed((0, 0, 4, 4)) - boxed((5, 5, 9, 9))  # evidence against takes no part
    assert energy(heat, [(0, 0, 2, 4), (1, 0, 3, 4), (5, 5, 9, 9)]) == pytest.approx(3 / 4)


def test_of_equal_maxima_the_share_in_the_box_counts():
    assert pointing(boxed((0, 0, 4, 4)), [(0, 0, 3, 14)]) == pytest.approx(12 / 16)


def test_a_tolerance_lets_near_misses_in():
    heat = boxed((2, 3, 3, 4))  # its centre is at (2.5, 3.5)
    box = (4.0, 0.0, 9.0, 9.0)
    assert [pointing(heat, [box], tolerance) for tolerance in (0, 1.4, 1.6)] == [0, 0, 1]


def test_a_pixel_belongs_to_a_box_by_its_centre():
    assert energy(boxed((2, 3, 4, 4)), [(2.6, 3.0, 4.4, 4.0)]) == 0.5


@pytest.mark.parametrize("boxes", [[], [(-9, -9, -1, -1)], [(2.6, 2.6, 3.4, 3.4)]], ids=["none", "cropped away", "between pixels"])
def test_without_a_box_on_the_input_there_is_nothing_to_hit(boxes):
    assert (pointing(HEAT, boxes), energy(HEAT, boxes)) == (None, None)
    found = worth(HEAT, PICTURE, probability, boxes)
    assert (found.pointing, found.energy, found.deletion is None) == (None, None, False)


# --- Maps that say nothing


@pytest.mark.parametrize("heat", [torch.zeros(HEIGHT, WIDTH), -HEAT.abs()], ids=["zero", "negative"])
def test_a_blank_map_has_no_order_and_misses(heat):
    before, grey = slow_probability(PICTURE.double().numpy()), slow_probability(np.zeros(PICTURE.shape))
    found = worth(heat, PICTURE, probability, [(0, 0, 5, 5)])
    assert (found.deletion, found.insertion, found.road, found.pointing, found.energy) == (None, None, None, 0, 0)
    assert found.average_drop == pytest.approx(max(0, before - grey) / before, abs=1e-6)
    assert found.increase == float(grey > before)


def test_a_map_that_is_not_finite_has_no_numbers():
    heat = HEAT.clone()
    heat[3, 3] = float("nan")
    assert worth(heat, PICTURE, probability, [(0, 0, 5, 5)]) == Worth()


def test_a_probability_that_is_not_finite_leaves_only_the_boxes():
    found = worth(boxed((1, 1, 4, 4)), PICTURE, lambda pictures: probability(pictures).log() * float("inf"), [(1, 1, 4, 4)])
    assert found == Worth(pointing=1, energy=1)


def test_equal_pixels_come_in_an_order_drawn_by_chance_but_always_the_same():
    heat = boxed((0, 0, 10, 2))
    first = ranks(heat)
    assert torch.equal(first, ranks(heat.clone()))
    assert sorted(first.flatten().tolist()) == list(range(HEIGHT * WIDTH))
    assert first[:2].max() == 19
    rows = (first[2:] < 80).float().sum(1)  # half of the 120 others, of 10 in each row
    assert rows.sum() == 60
    assert rows.max() < 10
    assert rows.min() > 0


# --- How it runs


def test_pictures_come_in_batches_and_not_more_of_them_than_promised():
    sizes: list[int] = []

    def counting(pictures: Tensor) -> Tensor:
        sizes.append(len(pictures))
        return probability(pictures)

    worth(HEAT, PICTURE, counting, steps=10, batch_size=8)
    assert sum(sizes) == 2 * 10 + 16
    assert max(sizes) == 8
    assert len(sizes) == 5


def test_pictures_keep_their_type_and_the_given_tensors_their_values():
    seen: set[torch.dtype] = set()
    heat, picture = HEAT.clone(), PICTURE.bfloat16()

    def noting(pictures: Tensor) -> Tensor:
        seen.add(pictures.dtype)
        return probability(pictures.float())

    found = worth(heat, picture, noting, steps=10)
    assert seen == {torch.bfloat16}
    assert torch.equal(heat, HEAT)
    assert torch.equal(picture, PICTURE.bfloat16())
    assert found.deletion == pytest.approx(worth(HEAT, PICTURE, probability, steps=10).deletion, abs=0.01)


def test_the_same_question_has_the_same_answer():
    state = torch.get_rng_state()
    assert worth(HEAT, PICTURE, probability) == worth(HEAT, PICTURE, probability)
    assert torch.equal(state, torch.get_rng_state())


def of_scene(heat: Callable[[Tensor], Tensor]) -> list[Worth]:
    model, found = sick.healthy().eval(), []
    for index in range(4):
        scene = scenes.scene(31, index)
        picture = scenes.normalised(torch.from_numpy(scene.image).permute(2, 0, 1))
        with torch.no_grad():
            score = lambda pictures, label=scene.labels[0]: model(pictures).softmax(1)[:, label]  # noqa: E731
            found.append(worth(heat(torch.from_numpy(scene.masks[0]).float()), picture, score, scene.boxes, steps=16))
    return found


def test_on_the_sample_network_the_object_itself_is_a_good_map_and_its_surroundings_are_a_bad_one():
    for good, bad in zip(of_scene(lambda mask: mask), of_scene(lambda mask: 1 - mask), strict=True):
        assert (good.insertion > bad.insertion, good.deletion < bad.deletion) == (True, True)
        assert good.road > 0.1 > -0.1 > bad.road
        assert (good.pointing, good.energy) == (1, 1)
        assert bad.energy < 0.3  # the corners of the box
