"""The grammar of trainer names."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

import monai_segloss
from nnunet_trainers.naming import (
    SET_BY_TRAINER,
    TrainerName,
    TrainerNameError,
    decode,
    encode,
    numeric_parameters,
    read,
    spell,
)

LOSSES = monai_segloss.list_losses()
PARAMETERS = {"alpha": float, "beta": float, "k": int, "smooth_nr": float}
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def names(parameters: dict[str, type]) -> SearchStrategy[TrainerName]:
    values = {name: st.integers() if kind is int else FINITE for name, kind in parameters.items()}
    return st.builds(
        TrainerName,
        st.just("Tversky"),
        st.fixed_dictionaries({}, optional=values),
        st.none() | st.floats(min_value=0, exclude_min=True, allow_infinity=False),
        st.none() | st.integers(0, 2**32 - 1),
        st.none() | st.integers(1, 10**6),
        st.none() | st.integers(1, 10**6),
        st.none() | st.just("adam"),
        st.booleans(),
    )


@pytest.mark.parametrize("info", LOSSES, ids=lambda info: info.key)
def test_decode_is_the_inverse_of_encode_for_every_loss(info: monai_segloss.LossInfo) -> None:
    parameters = numeric_parameters(info.cls)

    @settings(max_examples=25, deadline=None)
    @given(names(parameters))
    def inverse(name: TrainerName) -> None:
        text = encode(name, parameters)
        assert "__" not in text
        assert decode(text, parameters) == name
        assert encode(decode(text, parameters), parameters) == text

    inverse()


@pytest.mark.parametrize("info", LOSSES, ids=lambda info: info.key)
def test_every_plain_number_of_a_loss_can_stand_in_its_name(info: monai_segloss.LossInfo) -> None:
    numbers = [
        name
        for name, parameter in info.parameters.items()
        if type(parameter.default) in (int, float) and name not in SET_BY_TRAINER
    ]
    assert set(numbers) <= set(numeric_parameters(info.cls))


def test_a_full_name() -> None:
    name = "nnUNetTrainerTversky_alpha0p3_beta0p7_k5_lr1em2_seed1_20epochs_50iterations"
    wanted = TrainerName("Tversky", {"alpha": 0.3, "beta": 0.7, "k": 5}, 0.01, 1, 20, 50)
    assert decode(name, PARAMETERS) == wanted
    assert encode(wanted, PARAMETERS) == name


def test_the_optimizer_is_a_word() -> None:
    wanted = TrainerName("Tversky", {"alpha": 0.3}, 0.001, 1, 20, optimizer="adam")
    assert encode(wanted, PARAMETERS) == "nnUNetTrainerTversky_alpha0p3_lr1em3_adam_seed1_20epochs"
    assert decode("nnUNetTrainerTversky_alpha0p3_lr1em3_adam_seed1_20epochs", PARAMETERS) == wanted
    for wrong in ("adam_lr1em3", "adam_adam"):
        with pytest.raises(TrainerNameError, match=r"must be written 'nnUNetTrainerTversky_lr1em3_adam'|'adam' twice"):
            decode(f"nnUNetTrainerTversky_{wrong}", PARAMETERS)


@given(FINITE)
def test_numbers_survive_spelling(value: float) -> None:
    text = spell(value)
    assert set(text) <= set("0123456789pme")
    back = read(text)
    assert back is not None
    assert float(back) == value
    assert len(text) <= len(repr(value))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.3, "0p3"),
        (0.01, "1em2"),
        (0.025, "0p025"),
        (0.0, "0"),
        (-1.5, "m1p5"),
        (2, "2"),
        (100.0, "100"),
        (1e-5, "1em5"),
    ],
)
def test_spelling(value: float, text: str) -> None:
    assert spell(value) == text


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_numbers_that_have_no_spelling(value: float) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        spell(value)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("alpha0.3", "alpha0p3"),
        ("alpha=0.3", "alpha0p3"),
        ("alpha0p30", "alpha0p3"),
        ("alpha1e-2", "alpha1em2"),
        ("alpha0p01", "alpha1em2"),
        ("beta0p7_alpha0p3", "alpha0p3_beta0p7"),
        ("20epochs_seed1", "seed1_20epochs"),
        ("seed01", "seed1"),
        ("alpa0p3", "alpha0p3"),
        ("20epoch", "20epochs"),
        ("epochs20", "20epochs"),
        ("LR1em2", "lr1em2"),
        ("softlabel", "softlabels"),
        ("lr1em2_softlabels", "softlabels_lr1em2"),
    ],
)
def test_another_spelling_is_refused_naming_the_right_one(wrong: str, right: str) -> None:
    with pytest.raises(TrainerNameError, match=f"'nnUNetTrainerTversky_{right}'"):
        decode(f"nnUNetTrainerTversky_{wrong}", PARAMETERS)


@pytest.mark.parametrize(
    "suffix", ["", "_k3", "k2p5", "0epochs", "lr0", "alpha", "alpha03", "seed4294967296", "alpha1e999"]
)
def test_what_cannot_be_read_is_refused_with_the_settings(suffix: str) -> None:
    with pytest.raises(TrainerNameError, match="k<number>, smoothnr<number>, softlabels, lr<number>, adam, seed<N>"):
        decode(f"nnUNetTrainerTversky_{suffix}", PARAMETERS)


def test_soft_labels_are_a_word_of_the_name() -> None:
    name = "nnUNetTrainerTversky_alpha0p3_softlabels_lr1em2"
    wanted = TrainerName("Tversky", {"alpha": 0.3}, 0.01, soft_labels=True)
    assert decode(name, PARAMETERS) == wanted
    assert encode(wanted, PARAMETERS) == name


def test_a_setting_given_twice_is_refused() -> None:
    with pytest.raises(TrainerNameError, match="'seed' twice"):
        decode("nnUNetTrainerTversky_seed1_seed2", PARAMETERS)


@pytest.mark.parametrize("name", ["lr", "adam", "top1", "seed", "smoothnr"])
def test_arguments_that_a_name_could_not_tell_apart_are_refused(name: str) -> None:
    source = f"def __init__(self, smooth_nr: float = 1.0, {name}: float = 1.0) -> None: ..."
    space: dict[str, object] = {}
    exec(source, space)
    with pytest.raises(ValueError, match="cannot be told apart"):
        numeric_parameters(type("Loss", (), {"__init__": space["__init__"]}))


def test_flags_and_sequences_are_no_numbers() -> None:
    class Loss:
        def __init__(
            self,
            a: bool = True,
            b: float | None = None,
            c: list[float] | None = None,
            d: int = 1,
            weight: float = 1.0,
        ) -> None: ...

    assert numeric_parameters(Loss) == {"b": float, "d": int, "weight": float}
