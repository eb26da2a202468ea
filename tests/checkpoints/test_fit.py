"""What goes where: decided from names and shapes that are written down here, so the right answer is known."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from netlens.errors import UsageError
from netlens.loading.checkpoints.fit import Fit, Slot, fit
from netlens.loading.checkpoints.misfit import grouped, tables
from tests.checkpoints.by_hand import NET, archive, group, prefixed, slots, tensor


def fitted(*groups, places=None, **options) -> Fit:
    return fit(archive(*groups), slots() if places is None else places, model="net", **options)


def where(found: Fit) -> dict[str, str]:
    """Return name in the model -> name in the file."""
    return {pair.name: pair.tensor.name for pair in found.pairs}


def test_equal_names_and_shapes_fit_completely():
    found = fitted(group(NET))
    assert (found.complete, where(found), found.coverage()) == (True, {name: name for name in NET}, "4 of 4 tensors fit net")


def test_deciding_needs_no_torch():
    code = "import sys; import netlens.loading.checkpoints.fit, netlens.loading.checkpoints.misfit, netlens.loading.checkpoints.identify"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"], check=True)


# --- Prefixes


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.", "module.module.", "net.encoder.", "anything.at.all."]
)
def test_any_prefix_is_stripped_and_told(prefix):
    found = fitted(group(prefixed(prefix), key="state_dict"))
    assert where(found) == {name: prefix + name for name in NET}
    assert found.coverage() == f"4 of 4 tensors fit net · key `state_dict` · prefix `{prefix}` stripped"


def test_a_prefix_that_the_model_has_itself_stays():
    shapes = prefixed("module.")
    found = fitted(group(shapes), places=slots(shapes))
    assert (found.stripping.prefix, found.complete) == ("", True)


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_wrappers_inside_names_are_taken_out_on_either_side(wrapper):
    wrapped = {name.replace(".", f".{wrapper}."): shape for name, shape in NET.items()}
    in_file, in_model = fitted(group(wrapped)), fitted(group(NET), places=slots(wrapped))
    assert where(in_file) == dict(zip(NET, wrapped, strict=True))
    assert where(in_model) == dict(zip(wrapped, NET, strict=True))


def test_a_wrapper_inside_names_below_a_prefix():
    wrapped = prefixed("module.", {name.replace(".", "._orig_mod."): shape for name, shape in NET.items()})
    found = fitted(group(wrapped))
    assert (found.complete, found.stripping.prefix, found.stripping.bare) == (True, "module.", True)


def test_the_prefix_is_found_also_where_no_shape_fits():
    """Else the constructor hint would see nothing but missing and unexpected names."""
    narrow = {name: tuple(size // 2 or 1 for size in shape) for name, shape in NET.items()}
    found = fitted(group(prefixed("module.", narrow)))
    assert found.stripping.prefix == "module."
    assert [difference.name for difference in found.differences] == list(NET)


def test_mixed_prefixes_are_an_error_and_never_half_a_load():
    mixed = {**prefixed("module.", dict(list(NET.items())[:2])), **dict(list(NET.items())[2:])}
    with pytest.raises(UsageError, match="mixed"):
        fitted(group(mixed))


def test_two_parts_that_fit_alike_are_for_the_user_to_choose():
    both = {**prefixed("left."), **prefixed("right.")}
    with pytest.raises(UsageError) as caught:
        fitted(group(both))
    assert "'left.', 'right.'" in caught.value.message and caught.value.hint.endswith("--strip-prefix left.")
    found = fitted(group(both), strip_prefix="right.")
    assert where(found) == {name: f"right.{name}" for name in NET}
    assert found.complete and found.notes == ("4 tensors outside the prefix were left out",)


@pytest.mark.parametrize("copy", ["ema.", "model_ema.", "teacher.", "encoder_k.", "ema_model."])
def test_of_weights_and_their_average_the_weights_are_taken(copy):
    found = fitted(group({**prefixed(copy), **prefixed("net.")}))
    assert (where(found), len(found.unexpected)) == ({name: f"net.{name}" for name in NET}, 4)


def test_an_average_alone_is_never_taken_silently():
    with pytest.raises(UsageError, match="averaged copy") as caught:
        fitted(group(prefixed("ema.")))
    assert caught.value.hint.endswith("--strip-prefix ema.")
    assert fitted(group(prefixed("ema.")), strip_prefix="ema").complete


def test_a_given_prefix_must_be_there():
    with pytest.raises(UsageError) as caught:
        fitted(group(prefixed("module.")), strip_prefix="modul.")
    assert caught.value.hint == "names begin with module."


def test_a_coincidence_is_no_prefix():
    """One of 40 names ends as a place of the model does: that is another architecture, not a prefix."""
    other = {f"blocks.{index}.w": (3, 3) for index in range(40)} | {"a.fc.bias": (10,)}
    found = fitted(group(other), places=slots({**NET, **{f"x{index}": (2,) for index in range(40)}}))
    assert (found.stripping.prefix, found.pairs) == ("", ())


# --- Groups


def test_the_group_that_fits_is_taken():
    other = {"head.weight": (5, 5)}
    found = fitted(group(other, key="discriminator"), group(NET, key="generator"))
    assert (found.key, found.complete) == ("generator", True)


def test_between_equal_groups_the_usual_key_wins():
    assert fitted(group(NET, key="zz"), group(NET, key="state_dict")).key == "state_dict"


def test_between_unusual_equal_groups_the_user_chooses():
    with pytest.raises(UsageError, match=r"2 sets of weights that fit equally well: gen_a \(4 tensors\), gen_b"):
        fitted(group(NET, key="gen_a"), group(NET, key="gen_b"))
    assert fitted(group(NET, key="gen_a"), group(NET, key="gen_b"), key="gen_b").key == "gen_b"


def test_averaged_weights_are_told_of_and_taken_only_by_name():
    groups = group(NET, key="state_dict"), group(NET, key="ema", role="ema")
    assert fitted(*groups).notes == ("the file also holds averaged weights (EMA): --key ema takes them",)
    taken = fitted(*groups, key="ema")
    assert (taken.key, taken.notes) == ("ema", ("these are averaged weights (EMA), not the ones that were trained",))
    with pytest.raises(UsageError, match="only averaged weights") as caught:
        fitted(groups[1])
    assert caught.value.hint.endswith("--key ema")


def test_an_optimizer_is_no_model():
    with pytest.raises(UsageError, match="the state of an optimizer, and no weights"):
        fitted(group({"0.exp_avg": (8, 3)}, key="optimizer", role="optimizer"))


def test_a_key_that_is_not_there_gives_the_closest():
    with pytest.raises(UsageError) as caught:
        fitted(group(NET, key="state_dict"), key="state_dct")
    assert caught.value.hint == "did you mean 'state_dict'?"


# --- Tensors


def test_shapes_that_differ_say_on_which_axis():
    found = fitted(group({**NET, "fc.weight": (37, 8), "fc.bias": (37,), "conv.weight": (8, 1, 5, 3)}))
    assert {difference.name: difference.why for difference in found.differences} == {
        "conv.weight": "axes 1 and 2",
        "fc.weight": "axis 0",
        "fc.bias": "axis 0",
    }
    assert (found.fitting, found.total, found.complete) == (1, 4, False)


def test_a_different_number_of_axes():
    found = fitted(group({**NET, "fc.weight": (10, 8, 1, 1)}))
    assert [difference.why for difference in found.differences] == ["4 axes, not 2"]


def test_missing_and_unexpected_make_a_fit_incomplete():
    without = {name: shape for name, shape in NET.items() if name != "fc.bias"}
    found = fitted(group({**without, "extra": (2,)}))
    assert (found.missing, [stored.name for stored in found.unexpected], found.complete) == (("fc.bias",), ["extra"], False)
    assert found.coverage() == "3 of 4 tensors fit net, and 1 of the file have no place in it"


def test_a_tied_tensor_that_the_file_holds_once_is_not_missing():
    shapes = {"embed.weight": (9, 4), "head.weight": (9, 4)}
    tied = slots(shapes, head__weight=Slot("head.weight", (9, 4), "float32", tied_to="embed.weight"))
    for kept in shapes:
        found = fitted(group({kept: (9, 4)}), places=tied)
        assert (found.complete, found.fitting, len(found.tied)) == (True, 2, 1)
    assert fitted(group({"embed.weight": (9, 4)}), places=slots(shapes)).missing == ("head.weight",)


def test_counters_of_batch_norm_are_forgiven_on_either_side():
    counter = {"bn.num_batches_tracked": ()}
    absent = fitted(group(NET), places=slots({**NET, **counter}))
    assert (absent.complete, absent.fitting, absent.total) == (True, 4, 5)
    assert "1 counters of batch norm" in absent.notes[0]
    assert fitted(group({**NET, **counter})).complete


def test_buffers_that_the_model_makes_itself_are_left_alone():
    own = Slot("conv.index", (3,), "int64", "buffer", persistent=False)
    assert fitted(group(NET), places=(*slots(), own)).complete
    found = fitted(group({**NET, "conv.index": (99,)}), places=(*slots(), own))
    assert (found.complete, "conv.index" in where(found)) == (True, False)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("conv.weight_g", "conv.parametrizations.weight.original0"),
        ("conv.weight_v", "conv.parametrizations.weight.original1"),
        ("conv.parametrizations.weight.original0", "conv.weight_g"),
        ("rnn.weight_hh_l0_g", "rnn.parametrizations.weight_hh_l0.original0"),
        ("conv.weight_orig", "conv.parametrizations.weight.original"),
        ("conv.weight_v", "conv.parametrizations.weight.0._v"),
        ("bert.LayerNorm.gamma", "bert.LayerNorm.weight"),
        ("features.denseblock1.denselayer1.norm.1.weight", "features.denseblock1.denselayer1.norm1.weight"),
    ],
)
def test_older_names_find_their_place(old, new):
    assert where(fitted(group({old: (4, 1)}), places=slots({new: (4, 1)}))) == {new: old}


def test_renames_of_the_models_own_code_are_followed_after_the_prefix():
    found = fitted(
        group({"module.mlp.linear_1.w": (3,)}),
        places=slots({"mlp.0.w": (3,)}),
        renames={"mlp.linear_1.w": "mlp.0.w"},
        strip_prefix="module.",
    )
    assert where(found) == {"mlp.0.w": "module.mlp.linear_1.w"}


# --- Kinds of numbers


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float64", "float8_e4m3fn"])
def test_other_floats_are_converted_and_told(stored):
    found = fitted(group(NET, dtype=stored))
    assert found.complete and [(change.stored, change.model, change.count) for change in found.dtypes] == [(stored, "float32", 4)]
    assert found.notes[0].startswith(f"4 tensors are {stored} in the file and float32 in the model")
    assert ("scales" in found.notes[0]) == stored.startswith("float8")


@pytest.mark.parametrize(("stored", "words"), [("int8", "scales"), ("qint8", "scales"), ("complex64", "imaginary")])
def test_numbers_that_would_lose_their_meaning_do_not_fit(stored, words):
    found = fitted(group(NET, dtype=stored))
    assert not found.pairs and all(words in difference.why for difference in found.differences)


def test_a_tensor_that_cannot_be_read_does_not_fit():
    other = tuple(tensor(name, shape, readable=name != "fc.bias", why="sparse") for name, shape in NET.items())
    found = fit(archive(type(group(NET))("", "weights", other)), slots(), model="net")
    assert [(difference.name, difference.why) for difference in found.differences] == [
        ("fc.bias", "sparse can be read only by the package that wrote it")
    ]


def test_scalars_of_very_old_files_have_one_axis():
    assert fitted(group({"scale": (1,)}), places=slots({"scale": ()})).complete


def test_a_lazy_layer_takes_any_shape():
    assert fitted(group({"w": (5, 7)}), places=(Slot("w", None, "float32"),)).complete


# --- Telling it


def test_names_are_grouped_as_deep_as_the_rows_allow():
    names = [f"layer{i}.{j}.conv.weight" for i in range(3) for j in range(4)] + ["fc.bias"]
    assert grouped(names, most=20) == [(name, 1) for name in names]
    assert grouped(names, most=5) == [("layer0.*", 4), ("layer1.*", 4), ("layer2.*", 4), ("fc.bias", 1)]
    assert sum(count for _, count in grouped(names, most=2)) == len(names)


def test_names_without_a_dot_are_grouped_too():
    assert grouped([f"w{index}" for index in range(30)], most=10) == [("*", 30)]


def test_tables_are_cut_at_ten_rows_and_say_so():
    wide = {f"layer{index}": (2,) for index in range(25)}
    found = fitted(group(dict.fromkeys(wide, (3,))), places=slots(wide))
    (detail,) = tables(found)
    assert (len(detail.rows), detail.more) == (10, 15)


def test_a_hundred_thousand_hostile_names_take_seconds_at_most():
    """Names of many dots would cost a quadratic search its life."""
    names = {f"{'a.' * 40}{index}": (1,) for index in range(100_000)}
    started = time.perf_counter()
    found = fitted(group(names))
    tables(found)
    assert not found.pairs and time.perf_counter() - started < 20
