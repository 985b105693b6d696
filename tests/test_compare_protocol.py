"""Published comparisons: what they fill, the heads they are made on, and the part of the page that sets ours beside them."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparison_tables import rows
from rich.console import Console
from typer.testing import CliRunner

import nnunet_trainers.trainers  # noqa: F401  (sets variables of the environment)
from monai_segloss.cli import app
from monai_segloss.cli.compare_run import _matrix
from monai_segloss.demo import heads
from monai_segloss.demo.generate import Size
from monai_segloss.demo.problem import DemoError
from monai_segloss.demo.progress import Display
from monai_segloss.experiment import comparison, report
from monai_segloss.experiment.comparison import Comparison
from monai_segloss.experiment.matrix import MatrixError, matrix
from monai_segloss.experiment.measures import MEASURES
from monai_segloss.experiment.protocol import FILE, Protocol, followed, names, read_protocol
from monai_segloss.experiment.published import section
from monai_segloss.experiment.statistics import Settings
from monai_segloss.experiment.tables import HALF, MEAN, Tables


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("given", [{}, {"data": Path("raw")}], ids=["generated", "data"])
def test_every_protocol_is_a_comparison(name: str, given: dict[str, Any]) -> None:
    protocol = read_protocol(name)
    found = matrix(protocol.fill(given))
    assert (found.data is None) == bool(found.demo)
    assert set(protocol.measures) <= set(MEASURES)
    losses = {arm if isinstance(arm, str) else arm["name"] for arm in protocol.matrix["arms"]}
    assert len(found.arms) == len(losses) * max(1, len(protocol.rates))
    for values in protocol.published.values.values() if protocol.published else ():
        assert set(values) == losses
        assert {len(each) for each in values.values()} == {len(protocol.measures)}
        assert all(0 <= each <= 1 for pair in values.values() for each in pair)


def test_jadon() -> None:
    found = matrix(read_protocol("jadon2020").fill({}))
    assert (found.configuration, found.batch_size, found.demo, len(found.arms)) == ("2d", 32, "head", 9)
    assert all(re.search(r"_lr1em3_adam_seed\d_", run.trainer) for run in found.runs())
    assert found.reference.name == "cross_entropy"


def test_loss_odyssey_has_a_grid_of_rates() -> None:
    found = matrix(read_protocol("loss-odyssey").fill({}))
    assert [arm.name for arm in found.arms[:3]] == [f"asymmetric_similarity_lr{x}" for x in ("3em4", "3em3", "3em5")]
    assert found.reference.name == "dice_ce_lr3em4"
    assert {arm.lr for arm in found.arms} == {3e-4, 3e-3, 3e-5}
    assert "_lr3em3_adam_" in found.run(found.arms[1], 0, 0).trainer


def test_what_is_given_replaces_the_protocol() -> None:
    odyssey = read_protocol("loss-odyssey")
    found = _matrix(None, {"lr": 0.01, "demo": True, "seeds": 3, "arms": ["dice_ce", "dice"]}, odyssey)
    assert [arm.name for arm in found.arms] == ["dice_ce", "dice"]
    assert (found.lr, found.seeds, found.baseline, found.epochs) == (0.01, 3, "dice_ce", 6)
    own = matrix(odyssey.fill({"arms": ["dice_ce", {"name": "mine", "loss": "dice", "lr": 0.1}]}))
    assert [arm.name for arm in own.arms] == ["dice_ce_lr3em4", "dice_ce_lr3em3", "dice_ce_lr3em5", "mine"]
    assert _matrix(None, {"data": Path("raw")}, odyssey).epochs == 100
    with pytest.raises(MatrixError, match="give either data"):
        _matrix(None, {"data": Path("raw"), "demo": True}, odyssey)


def test_no_such_protocol(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["compare", "run", "--protocol", "loss-odissey", "-o", str(out)])
    assert result.exit_code == 2
    text = " ".join(result.output.split())
    assert (
        "No protocol is called 'loss-odissey'; did you mean 'loss-odyssey'? There are jadon2020, loss-odyssey." in text
    )
    assert not out.exists()


def test_heads() -> None:
    one, again, other = heads.make_head(3), heads.make_head(3), heads.make_head(4)
    assert np.array_equal(one.image, again.image)
    assert not np.array_equal(one.label, other.label)
    assert 0.04 < one.label.mean() < 0.2
    bone, rest = one.image[one.label == 1], one.image[one.label == 0]
    assert np.median(bone) > np.percentile(rest, 97)
    assert np.percentile(bone, 5) < np.percentile(rest, 99)  # no threshold tells all of it


def test_a_fold_is_left_out_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "HEADS", Size(10, 0, (40.0, 48.0, 48.0)))
    content = {"demo": "head", "arms": ["dice", "dice_ce"], "validation_fold": True, "configuration": "2d"}
    made = Comparison(tmp_path, matrix({**content, "folds": [4]}), Display(Console(file=io.StringIO())))
    with made.open():
        made._data()
    splits = made.splits()
    assert len(splits) == 5
    for i, each in enumerate(splits):
        left = set(splits[(i + 1) % 5]["val"])
        assert [len(each["train"]), len(each["val"]), len(left)] == [6, 2, 2]
        assert not set(each["train"]) & (set(each["val"]) | left)
    other = Comparison(tmp_path, matrix({**content, "validation_fold": False}), Display(Console(file=io.StringIO())))
    with pytest.raises(DemoError, match="validation_fold"), other.open():
        pass


PROTOCOL = Protocol.model_validate({
    "name": "p", "paper": "A paper", "facts": "From its text.", "matrix": {"arms": ["a", "b", "c", "d"], "epochs": 7},
    "generated": {}, "rates": [0.1, 0.01], "measures": ["dice", "hd95"],
    "published": {"source": "its table", "values": {"X": {"a": [0.5, 9], "b": [0.6, 8], "c": [0.7, 7], "d": [0.8, 6]}}},
    "differs": ["Everything differs."],
})  # fmt: skip
DICE = {
    "a_lr0p1": (0.1, 0.9, 0.5),
    "a_lr1em2": (0.2, 0.2, 0.2),
    "b": (0.3, 0.4, 0.5),
    "c": (0.9, 0.8, 0.7),
    "e": (0, 0, 0),
}


def tables() -> Tables:
    about = {"dataset": "D", "configuration": "2d", "fold": "0", "seed": 0, "state": "done"}
    cases = [
        {"run": arm, "case": f"c{i}", "patient": f"p{i}", "label": MEAN, "point": HALF, "dice": value, "hd95": 10 * i}
        for arm, values in DICE.items() for i, value in enumerate(values)
    ]  # fmt: skip
    return Tables.of([{"run": arm, "arm": arm, **about} for arm in DICE], cases)


def test_our_values_beside_the_published_ones() -> None:
    found = section(PROTOCOL, tables(), {"epochs": 5, "demo": True})
    (table,) = found.tables
    assert table.columns == (columns := ["loss", *table.columns[1:]])
    assert columns[1] == "Dice, here"
    assert columns[3] == "Dice, X"
    shown = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    # 0.1 is best over the others for the patients 0 and 2, and for 1 too: (0.1 + 0.5) / 2 against 0.2.
    assert shown["a"] == ["0.500", "10.00", "0.5000", "9.0000"]
    assert shown["b"] == ["0.400", "10.00", "0.6000", "8.0000"]
    assert shown["d"][2:] == ["0.8000", "6.0000"]
    assert table.rows[3][1].reason == "not trained here"
    text = " ".join(found.text)
    parts = ["A paper", "Published values: its table.", "Everything differs.", "The data are generated."]
    parts += [
        "`epochs` is 5 here and 7 in the protocol.",
        "Not of the protocol: `e`.",
        "the order of 3 losses in Dice here and there: 0.33 (X)",
    ]
    for part in parts:
        assert part in text, part


def test_the_rate_of_a_patient_is_chosen_on_the_others() -> None:
    changed = tables()
    changed.cases.loc[changed.cases["run"] == "a_lr0p1", "dice"] = [0.9, 0.1, 0.1]  # best for the first patient alone
    shown = section(PROTOCOL, changed, {}).tables[0].rows[0]
    # Others of patient 0: 0.1 < 0.2; of 1 and 2: (0.9 + 0.1) / 2 > 0.2.
    assert shown[1].text == f"{(0.2 + 0.1 + 0.1) / 3:.3f}"


def test_the_page_of_a_comparison_that_followed_a_protocol(tmp_path: Path) -> None:
    arms = {"cross_entropy": 0.0, "dice": 0.05}
    Tables.of(*rows(arms, dict.fromkeys(arms, 2), (HALF,))).write(tmp_path / "tables")
    quick = Settings(resamples=100)
    assert 'id="protocol"' not in report.write(tmp_path, "cross_entropy", quick).read_text(encoding="utf-8")
    (tmp_path / FILE).write_text(read_protocol("jadon2020").model_dump_json(exclude_defaults=True))
    (tmp_path / "comparison.json").write_text(
        json.dumps({"data": "raw", "configuration": "2d", "optimizer": "adam", "lr": 0.05})
    )
    page = report.write(tmp_path, "cross_entropy", quick).read_text(encoding="utf-8")
    assert 'id="protocol"' in page
    for part in ("arXiv:2006.14822", "<code>lr</code> is 0.05 here and 0.001 in the protocol", "Sensitivity, here"):
        assert part in page, part
    assert "The data are generated." not in page
    assert "| log\\_cosh\\_dice |" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_file_that_is_no_protocol(tmp_path: Path) -> None:
    assert followed(tmp_path) is None
    for content in ("{", '{"name": "x"}'):
        (tmp_path / FILE).write_text(content)
        with pytest.raises(MatrixError, match=r"protocol.json (cannot be read|holds no protocol)"):
            followed(tmp_path)
