"""Losses as data: what a YAML file, OmegaConf and a mistyped word make of a configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableSequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from pydantic import ValidationError

import monai_segloss
from monai_segloss import LossConfig, WeightedSum, create
from monai_segloss.bundle.settings import SettingError, check_settings
from monai_segloss.checking import check
from monai_segloss.config import sentence
from monai_segloss.core.arguments import plain
from monai_segloss.schedules import Linear, schedule
from monai_segloss.testing.harness import make, supported
from monai_segloss.transforms import SignedDistanceMapd

LOSSES = monai_segloss.list_losses()


class Listed(MutableSequence[Any]):
    """A list that is none, and neither hashes nor compares with one: as OmegaConf's ``ListConfig``."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, values: Any) -> None:
        self.values = list(values)

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self.values[index] = value

    def __delitem__(self, index: Any) -> None:
        del self.values[index]

    def __len__(self) -> int:
        return len(self.values)

    def insert(self, index: int, value: Any) -> None:
        self.values.insert(index, value)


class Mapped(Mapping[str, Any]):
    """A mapping that is no dict: as OmegaConf's ``DictConfig``."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values_ = dict(values)

    def __getitem__(self, name: str) -> Any:
        return self.values_[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)


def foreign(value: Any) -> Any:
    """The same in the containers of another program."""
    if isinstance(value, dict):
        return Mapped({name: foreign(each) for name, each in value.items()})
    return Listed(map(foreign, value)) if isinstance(value, list | tuple) else value


def said(content: Any) -> str:
    with pytest.raises(ValidationError) as error:
        LossConfig.model_validate(content)
    return sentence(error.value)


WRONG: list[tuple[Any, str]] = [
    (
        {"loss": "focal_tversky", "gamma": 2},
        "a loss configuration has no key 'gamma': it is an argument of focal_tversky, and belongs under 'arguments'.",
    ),
    (
        {"loss": "focal_tversky", "argument": {"gamma": 2}},
        "a loss configuration has no key 'argument'; did you mean 'arguments'? It has loss, arguments, terms.",
    ),
    ({"los": "dice"}, "a loss configuration has no key 'los'; did you mean 'loss'? It has loss, arguments, terms."),
    (
        {"dice": 1, "boundary": 0.1},
        "has no key 'dice': it is a loss; give it as the value of 'loss', or under 'terms'.",
    ),
    ({"loss": "dice", "softmax": True}, "a loss configuration has no key 'softmax'. It has loss, arguments, terms."),
    ({1: 2}, "a loss configuration has no key 1. It has loss, arguments, terms."),
    ({"loss": 3}, "loss must be the name of a loss, got 3."),
    ({"loss": "dice", "arguments": [1]}, "arguments must be a mapping of arguments of the loss, got [1]."),
    ({"loss": "dice", "arguments": None}, "arguments must be a mapping of arguments of the loss, got None."),
    ({"terms": ["dice"]}, "terms must be a mapping of terms, got ['dice']."),
    ({"terms": {1: 1}}, "the names of arguments and terms must be text, got 1."),
    ({"terms": {"dice": {"wieght": 1}}}, "dice has no argument 'wieght'; did you mean 'weight'?"),
    ({"terms": {"dice": {"weight": {"schedule": ["linear"]}}}}, "no schedule is called ['linear']"),
    ([1], "a loss configuration has the keys loss, arguments, terms, got [1]."),
    (None, "a loss configuration has the keys loss, arguments, terms, got None."),
    ("dice", "a loss configuration has the keys loss, arguments, terms, got 'dice'."),
]


@pytest.mark.parametrize(("content", "message"), WRONG, ids=lambda x: repr(x)[:40])
def test_a_mistake_is_named(content: Any, message: str, tmp_path: Path) -> None:
    assert message in said(content)
    file = tmp_path / "loss.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    findings = check(file)
    assert [finding.level for finding in findings] == ["error"]
    assert message in findings[0].text


@pytest.mark.parametrize("text", ["1e-2", "1E-2", "+1.0e-2", ".1e-1", "10.e-3", "100e-4"])
def test_a_number_that_yaml_takes_for_a_word(text: str) -> None:
    content = yaml.safe_load(f"terms: {{dice: {text}, focal: {{weight: {text}, gamma: {text}}}}}")
    loss = LossConfig.model_validate(content).build(softmax=True)
    assert loss.term_weights == {"dice": 0.01, "focal": 0.01}
    assert loss.terms["focal"].gamma == 0.01
    assert WeightedSum(content["terms"]).term_weights == loss.term_weights
    ramp = yaml.safe_load(f"{{schedule: linear, start: {text}, end: 1, epochs: 3}}")
    assert schedule(ramp) == Linear(0.01, 1, 3)
    assert LossConfig(terms={"dice": 1, "focal": ramp}).terms["focal"]["weight"]["start"] == 0.01
    assert schedule(text)(0) == 0.01
    node = yaml.safe_load(f"{{_target_: monai_segloss.FocalLoss, gamma: {text}, alpha: {text}}}")
    assert ConfigParser({"loss": node}).get_parsed_content("loss").gamma == 0.01
    transform = SignedDistanceMapd("label", num_classes=2, clip=text)
    assert transform.converter.options == {"clip": 0.01}


@pytest.mark.parametrize("text", ["e-2", "1e", "linear", "1e-2x", "0x1e2", "nan", "1_0e2"])
def test_other_words_stay_words(text: str) -> None:
    assert plain(text) == text


def test_a_setting_of_the_bundle_names_the_dot_that_yaml_needs() -> None:
    message = "learning_rate must be a number above 0, got '1e-3'; a YAML file needs the dot of 0.001."
    with pytest.raises(SettingError) as error:
        check_settings(yaml.safe_load("learning_rate: 1e-3"))
    assert str(error.value) == message


@pytest.mark.parametrize("info", LOSSES, ids=lambda info: info.key)
def test_containers_of_other_programs_are_plain_ones(info: Any) -> None:
    """In every loss: the same arguments, needs and value, from the constructor and from a configuration."""
    given = {name: p.default for name, p in info.parameters.items() if isinstance(p.default, list | tuple)}
    given |= {name: value for name, value in info.example.items() if isinstance(value, list | tuple | dict)}
    given |= {"clip": [3, 5]} if "clip" in info.parameters else {}
    given |= {"weight": [1.0, 2.0, 3.0]} if "weight" in info.parameters and "weight" not in info.example else {}
    case = supported(info)[0]
    given = {} if case.input.shape[1] != 3 and "weight" in given else given
    ours = make(info, case, **given)
    theirs = make(info, case, **{name: foreign(value) for name, value in given.items()})
    assert ours.needs == theirs.needs
    assert hash(theirs.needs) == hash(ours.needs)
    assert torch.equal(ours(case.input, case.target, **case.call), theirs(case.input, case.target, **case.call))
    lists = {name: list(x) if isinstance(x, tuple) else x for name, x in {**info.example, **given}.items()}
    content = {"loss": info.key, "arguments": lists}
    assert LossConfig.model_validate(foreign(content)) == LossConfig.model_validate(content)


def test_a_sum_in_containers_of_other_programs() -> None:
    terms = {
        "dice": 1,
        "boundary": {"weight": {"schedule": "linear", "start": 0, "end": 1, "epochs": 2}, "clip": [3, 5]},
    }
    ours, theirs = WeightedSum(terms), WeightedSum(foreign(terms))
    assert ours.needs == theirs.needs
    assert len({*ours.needs, *theirs.needs}) == 1
    assert ours.arguments == theirs.arguments
    assert LossConfig(terms=foreign(terms)) == LossConfig(terms=terms)
    alone = SignedDistanceMapd("label", num_classes=2, clip=foreign([3, 5]), spacing=foreign([1, 1, 2]))
    assert alone.output_keys == SignedDistanceMapd("label", num_classes=2, clip=[3, 5]).output_keys
    assert create("boundary", clip=foreign([3, 5])).needs == create("boundary", clip=(3, 5)).needs
