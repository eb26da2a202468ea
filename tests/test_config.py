"""`[tool.netlens]` in `pyproject.toml`: where it is found, what it may say, and what is said about mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from netlens.cli.config import Config, load_config, with_defaults
from netlens.cli.config_keys import KEYS
from netlens.cli.options import FailLevel, HalfPrecision, Precision, ReportFormat
from netlens.errors import FileProblem, UsageError


def write(folder: Path, text: str) -> Path:
    """Write a `pyproject.toml`, marking the folder as the top of a repository, so that no file above it can interfere."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".git").mkdir(exist_ok=True)
    path = folder / "pyproject.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str) -> UsageError:
    """The complaint about a file, which always names it."""
    path = write(folder, text)
    with pytest.raises(UsageError) as caught:
        load_config(folder)
    assert str(path) in caught.value.message and caught.value.hint
    return caught.value


WHOLE = """
[project]
name = "nets"

[tool.netlens]
max-memory = "24GiB"
depth = 3
time = true
columns = ["params", "macs"]
fail-on = "warning"

[tool.netlens.models.classifier]
model = "my.models:Net"
input = "1,3,224,224"
model-arg = { num_classes = 10, act = "10", wide = true, sizes = [1, 2] }
expect-output = "1,10"
expect-params = 11_689_512
lock = "netlens.lock.json"
lock-level = "params"

[tool.netlens.models."text encoder"]
model = "hf:./config"
input = ["ids=1,8:int64", "mask=1,8"]
model-arg = ["layers=2"]
expect-output = ["logits=1,2", "?"]
expect-params = "11.7M"
depth = 1
"""


def test_a_whole_file_becomes_values_of_options(tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE)
    config = load_config(tmp_path)
    assert config == Config(
        path=path,
        defaults={"max-memory": "24GiB", "depth": 3, "time": True, "columns": "params,macs", "fail-on": "warning"},
        models={
            "classifier": {
                "model": "my.models:Net",
                "input": ("1,3,224,224",),
                "model-arg": ("num_classes=10", "act='10'", "wide=True", "sizes=[1, 2]"),
                "expect-output": ("1,10",),
                "expect-params": 11689512,
                "lock": "netlens.lock.json",
                "lock-level": "params",
            },
            "text encoder": {
                "model": "hf:./config",
                "input": ("ids=1,8:int64", "mask=1,8"),
                "model-arg": ("layers=2",),
                "expect-output": ("logits=1,2", "?"),
                "expect-params": "11.7M",
                "depth": 1,
            },
        },
    )


# --- finding the file -------------------------------------------------------------------------------------------------------


def test_the_nearest_file_with_a_table_upward_counts(tmp_path: Path) -> None:
    top = write(tmp_path, "[tool.netlens]\ndepth = 1")
    inner = tmp_path / "package" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "package" / "pyproject.toml").write_text('[project]\nname = "no-netlens-table"')
    assert load_config(inner).path == top
    (inner / "pyproject.toml").write_text("[tool.netlens]\ndepth = 2")
    assert load_config(inner).defaults == {"depth": 2}


def test_the_search_ends_at_the_top_of_the_repository(tmp_path: Path) -> None:
    write(tmp_path, "[tool.netlens]\ndepth = 1")
    (tmp_path / "clone" / ".git").mkdir(parents=True)
    assert load_config(tmp_path / "clone") == Config()


def test_no_file_and_an_empty_table_are_no_defaults(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    assert load_config(tmp_path) == Config(None, {}, {})
    assert load_config(write(tmp_path, "[tool.netlens]").parent).defaults == {}


def test_the_start_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "[tool.netlens]\ndepth = 1")
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    assert load_config(Path()).path == path


def test_a_broken_file_that_does_not_mention_netlens_is_not_our_business(tmp_path: Path) -> None:
    write(tmp_path, "[tool\nbroken")
    assert load_config(tmp_path) == Config()


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    write(tmp_path, "\ufeff[tool.netlens]\ndepth = 1")
    assert load_config(tmp_path).defaults == {"depth": 1}


# --- files that cannot be read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[tool.netlens]\ndepth = 1\nseed = = 2\n", 3),
        ("[tool.netlens]\ndepth = 1\ndepth = 2\n", 3),
        ('[tool.netlens]\ndevice = "cpu\n', 2),
        ("[tool.netlens]\n\ncolumns = [", 3),  # ends too early
        ("# netlens\n" + "x = " + "[" * 100_000, 2),  # too deep
    ],
)
def test_malformed_toml_names_the_file_and_the_line(tmp_path: Path, text: str, line: int) -> None:
    path = write(tmp_path, text)
    with pytest.raises(FileProblem) as caught:
        load_config(tmp_path)
    assert caught.value.message.startswith(f"{path}, line {line}: ")
    assert "\n" not in caught.value.message and caught.value.hint


def test_what_is_not_utf8_names_the_line(tmp_path: Path) -> None:
    write(tmp_path, "").write_bytes(b"[tool.netlens]\n# \xe9\n")
    with pytest.raises(FileProblem, match="line 2: not UTF-8"):
        load_config(tmp_path)


# --- mistakes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "meant"), [("max_params", "max-params"), ("dept", "depth"), ("Lock-Level", "lock-level")])
def test_an_unknown_key_names_the_closest_one(tmp_path: Path, key: str, meant: str) -> None:
    error = refused(tmp_path, f"[tool.netlens]\n{key} = 1")
    assert repr(key) in error.message
    assert error.hint == f"did you mean {meant!r}?"
    error = refused(tmp_path, f'[tool.netlens.models.a]\nmodel = "resnet18"\n{key} = 1')
    assert "[tool.netlens.models.a]" in error.message and meant in error.hint


def test_a_key_that_resembles_none_lists_them(tmp_path: Path) -> None:
    assert "max-params" in refused(tmp_path, "[tool.netlens]\nzzz = 1").hint


@pytest.mark.parametrize("key", ["trust", "trust-checkpoint", "update-lock", "overwrite"])
def test_consent_is_never_taken_from_a_file(tmp_path: Path, key: str) -> None:
    assert f"no key {key!r}" in refused(tmp_path, f"[tool.netlens]\n{key} = true").message


def test_a_key_in_the_wrong_place_says_where_it_goes(tmp_path: Path) -> None:
    assert "[tool.netlens.models.NAME]" in refused(tmp_path, '[tool.netlens]\ninput = "1,3"').hint
    assert "[tool.netlens]" in refused(tmp_path, '[tool.netlens.models.a]\nmodel = "m"\nformat = "json"').hint


@pytest.mark.parametrize(
    "line",
    [
        "depth = true",
        "depth = -1",
        'depth = "3"',
        "depth = 1.5",
        "time = 1",
        'time = "yes"',
        "device = 3",
        'device = ""',
        "lock = []",
        "max-params = 1.5",
        "max-params = true",
        "max-size = [1]",
        "columns = [1]",
        'lock-level = "weights"',
        'format = "yaml"',
        'dtype = "fp8"',
        'dtype = "float16"',
        'autocast = "fp32"',
        "autocast = true",
        'channels-last = "yes"',
        "auto-batch = 1",
        "batch-size = 0",
        "batch-size = true",
        'batch-size = "8"',
    ],
)
def test_a_value_of_the_wrong_type_says_what_the_key_takes(tmp_path: Path, line: str) -> None:
    key = line.split(" = ")[0]
    error = refused(tmp_path, f"[tool.netlens]\n{line}")
    assert error.message.startswith(f"{key} in [tool.netlens]")
    assert error.hint.startswith(f"{key} takes ")


@pytest.mark.parametrize(
    "line",
    [
        "input = [1, 3, 224, 224]",
        "input = 1",
        "expect-output = [1, 1000]",
        "model-arg = 3",
        'model-arg = ["width"]',
        "expect-params = 1.5",
        "model-arg = { since = 2020-01-01 }",
        "model-arg = { x = nan }",
        "model-arg = { x = [inf] }",
    ],
)
def test_a_value_of_the_wrong_type_in_a_model_says_what_the_key_takes(tmp_path: Path, line: str) -> None:
    error = refused(tmp_path, f'[tool.netlens.models.a]\nmodel = "resnet18"\n{line}')
    assert "[tool.netlens.models.a]" in error.message
    assert error.hint.startswith(f"{line.split(' = ')[0]} takes ")


@pytest.mark.parametrize(
    "text",
    [
        "[tool]\nnetlens = 3",
        "[tool.netlens]\nmodels = 3",
        '[tool.netlens.models]\na = "resnet18"',
        '[tool.netlens.models.a]\ninput = "1,3"',
    ],
)
def test_tables_that_are_no_tables_and_models_without_a_model_are_refused(tmp_path: Path, text: str) -> None:
    refused(tmp_path, text)


@pytest.mark.parametrize("key", ["dtype", "autocast", "format", "fail-on"])
def test_a_choice_of_the_option_is_one_of_the_key_and_of_all_models(tmp_path: Path, key: str) -> None:
    choices = {"dtype": Precision, "autocast": HalfPrecision, "format": ReportFormat, "fail-on": FailLevel}[key]
    for choice in choices:
        write(tmp_path, f'[tool.netlens]\n{key} = "{choice.value}"')
        assert load_config(tmp_path).defaults == {key: choice.value}
    assert "[tool.netlens]" in refused(tmp_path, f'[tool.netlens.models.a]\nmodel = "m"\n{key} = "{choice.value}"').hint


def test_the_command_line_comes_before_the_file_and_only_what_a_lens_knows_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, '[tool.netlens]\nbatch-size = 4\nfail-on = "never"\nauto-batch = true\ndepth = 2\ndevice = "cpu"')
    monkeypatch.chdir(tmp_path)
    asked = with_defaults({"model": "m", "batch_size": 2}, ("batch_size", "fail_on", "auto_batch", "device", "seed"))
    assert asked == {"model": "m", "batch_size": 2, "fail_on": "never", "auto_batch": True, "device": "cpu"}


def test_a_default_that_computes_nothing_is_none_for_a_lens_that_needs_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, '[tool.netlens]\ndevice = "meta"')
    monkeypatch.chdir(tmp_path)
    assert with_defaults({}, ("device",)) == {}
    assert with_defaults({"device": "meta"}, ("device",)) == {"device": "meta"}  # asked for: told that it cannot be


def test_every_key_is_written_like_an_option() -> None:
    assert all(key == key.lower() and "_" not in key for key in KEYS)
