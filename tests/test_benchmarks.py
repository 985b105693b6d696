"""The benchmarks: peers compute our losses, results survive a kill, ratios stay within generous bounds.

No assertion is on absolute time; times are CPU time, the least of calls that take turns.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import monai_segloss

pytest.importorskip("monai.losses")
pytest.importorskip("nnunetv2")
sys.path.append(str(Path(__file__).resolve().parent.parent))  # last: the installed package comes before the sources
from benchmarks import learned, losses, memory, page, scaling, slices, step, topology
from benchmarks.__main__ import COMMANDS
from benchmarks.measure import floor, race
from benchmarks.peers import PEERS, case, maps_of, ours
from benchmarks.results import Results
from monai_segloss.core.counts import BACKENDS

ROOT = Path(__file__).resolve().parent.parent
KEYS = [info.key for info in monai_segloss.list_losses()]
GUARD = [(3, 64, 2.0), (16, 40, 1.2), (118, 24, 0.8)]
"""Classes, edge, and what `dice_ce` may take relative to the faster of MONAI and nnU-Net."""
QUIET = pytest.mark.filterwarnings("ignore:size_average and reduce args will be deprecated:UserWarning")


@QUIET
@pytest.mark.parametrize("library", PEERS)
def test_peers_compute_the_same_loss(library: str) -> None:
    if library == "kornia":
        pytest.importorskip("kornia")
    peers = PEERS[library]()
    assert peers
    assert set(peers) <= set(KEYS)
    for classes in (3, 5):
        logits, label = case(classes, 24)
        present = torch.stack([(label == c).flatten(1).any(1) for c in range(classes)])
        assert present.all(), "a class that is absent is scored differently by some"
        for key, peer in peers.items():
            loss = ours(key)
            found, expected = loss(logits, label), peer.as_ours(logits, label)
            (slope,), (other,) = (torch.autograd.grad(value, logits) for value in (found, expected))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6, msg=lambda text, k=key: f"{k}: {text}")
            assert (slope - other).norm() < 1e-3 * other.norm(), f"{key}: another gradient"


@pytest.mark.parametrize("key", KEYS)
def test_every_loss_runs_in_the_benchmark(key: str) -> None:
    """Also with its maps given, which changes nothing."""
    logits, label = case(3, 16)
    loss = ours(key)
    value = loss(logits, label)
    value.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    maps = maps_of(key, label, 3)
    if maps:
        torch.testing.assert_close(ours(key, **maps)(logits, label), value)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for each other count as CPU time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def ratios(key: str, classes: int, edge: int) -> dict[str, float]:
    """CPU time of ours next to that of each peer."""
    found = race(losses.Bench(key, classes, edge, 1, "cpu").calls(), "cpu", 15, 20.0)
    return {name: found["segloss"]["cpu"] / each["cpu"] for name, each in found.items() if name != "segloss"}


@QUIET
@pytest.mark.slow
@pytest.mark.usefixtures("one_thread", "compiler")
@pytest.mark.parametrize(("classes", "edge", "bound"), GUARD)
def test_dice_ce_is_not_much_slower_than_its_peers(classes: int, edge: int, bound: float) -> None:
    """Wanted are 0.8, 0.6 and 0.3; what fails here is a loss of speed, not noise."""
    found = ratios("dice_ce", classes, edge)
    assert max(found["monai"], found["nnunet"]) < bound, found


@QUIET
@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("key", ["dice", "tversky", "focal_tversky", "cross_entropy", "focal", "dice_focal"])
def test_sums_cost_about_as_much_as_dice_ce(key: str) -> None:
    bench = losses.Bench(key, 3, 48, 1, "cpu")
    calls = {"loss": bench.calls()["segloss"], "dice_ce": lambda: bench.step(ours("dice_ce"))}
    found = race(calls, "cpu", 15, 20.0)
    assert found["loss"]["cpu"] < 3 * found["dice_ce"]["cpu"], found


@QUIET
@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_slow_loss_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard sees statistics that are computed eight times."""
    fast = BACKENDS["cpu"]
    monkeypatch.setitem(BACKENDS, "cpu", lambda *a: sum(fast(*a) for _ in range(8)) / 8)
    found = ratios("dice_ce", *GUARD[0][:2])
    assert max(found["monai"], found["nnunet"]) > GUARD[0][2], found


def test_turns_are_taken() -> None:
    order: list[str] = []
    found = race({name: lambda name=name: order.append(name) for name in "abc"}, "cpu", 3, 10.0)
    assert order == list("abc") * 4, "one round to warm up, then three"
    assert all(each["rounds"] == 3 and 0 <= each["least"] <= each["median"] for each in found.values())
    assert race({"a": lambda: None}, "cpu", 99, 0.0)["a"]["rounds"] == 1, "the time is up after one round"


def test_the_floor_moves_logits_thrice_and_labels_twice() -> None:
    logits, label = torch.zeros(2, 3, 5), torch.zeros(2, 1, 5, dtype=torch.uint8)
    assert floor(logits, label, 10.0) == pytest.approx((3 * 30 * 4 + 2 * 10) / 10)


@QUIET
def test_a_killed_run_keeps_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "losses.json"
    command = ["losses", "--classes", "3", "--edge", "8", "--repeats", "1", "--no-memory", "--json", str(file)]
    measured: list[str] = []
    true = losses.row

    def row(key: str, *rest: Any) -> dict[str, Any]:
        if len(measured) == 1 and key == "tversky":
            raise KeyboardInterrupt
        measured.append(key)
        return true(key, *rest)

    monkeypatch.setattr(losses, "row", row)
    monkeypatch.setattr(losses, "copy_bandwidth", lambda device: 1e9)
    monkeypatch.setattr(sys, "argv", [*command, "--keys", "dice", "tversky"])
    with pytest.raises(KeyboardInterrupt):
        losses.main()
    assert [each["loss"] for each in json.loads(file.read_text())["rows"]] == ["dice"]
    measured.append("restarted")
    losses.main()
    assert measured == ["dice", "restarted", "tversky"]
    content = json.loads(file.read_text())
    assert [each["loss"] for each in content["rows"]] == ["dice", "tversky"]
    assert content["environments"][content["rows"][0]["environment"]]["torch"] == torch.__version__.split("+")[0]
    assert not list(tmp_path.glob("*.unfinished"))


def test_a_row_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    results = Results(tmp_path / "machine" / "x.json")
    for key, value in (("b", 1), ("a", 2), ("b", 3)):
        results.add({"loss": key, "value": value}, "loss")
    again = Results(tmp_path / "machine" / "x.json")
    assert [(row["loss"], row["value"]) for row in again.rows] == [("a", 2), ("b", 3)]
    again.here = {**again.here, "commit": "another"}
    again.add({"loss": "a", "value": 4}, "loss")
    assert [again.environments[row["environment"]]["commit"] == "another" for row in again.rows] == [True, False]
    again.add({"loss": "b", "value": 5}, "loss")
    assert len(again.environments) == 1, "an environment without rows is forgotten"


def test_parts_are_all_keys_once() -> None:
    assert sorted(losses.part(KEYS, "1/3") + losses.part(KEYS, "2/3") + losses.part(KEYS, "3/3")) == KEYS
    with pytest.raises(SystemExit, match="from 1 to 3"):
        losses.part(KEYS, "4/3")


def test_commands_are_modules_and_a_wrong_one_is_named() -> None:
    for command in COMMANDS:
        assert (ROOT / "benchmarks" / f"{command.replace('-', '_')}.py").exists()
    done = subprocess.run([sys.executable, "-m", "benchmarks", "speed"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no command is called 'speed'" in done.stderr
    assert all(command in done.stderr for command in COMMANDS)


def seconds(**least: float) -> dict[str, dict[str, float]]:
    return {name: {"least": value, "median": value, "cpu": value, "rounds": 1} for name, value in least.items()}


def test_the_page_shows_every_machine(tmp_path: Path) -> None:
    rows = [
        {
            "loss": "dice_ce",
            "classes": 3,
            "edge": 96,
            "batch": 2,
            "floor": 0.002,
            "extra bytes": {"segloss": 1e6, "monai": 4e6, "nnunet": 5e6},
        }
        | {"seconds": seconds(segloss=0.01, monai=0.02, nnunet=0.04, dice_ce=0.01)},
        {"loss": "boundary", "classes": 3, "edge": 96, "batch": 2, "floor": 0.002}
        | {"seconds": seconds(segloss=0.1, given=0.005, dice_ce=0.01)},
    ]
    for machine in ("one", "two"):
        results = Results(tmp_path / machine / "losses.json")
        for row in rows:
            results.add(row, *losses.FIELDS)
        results = Results(tmp_path / machine / "scaling.json")
        for edge in (32, 48):
            results.add({**rows[0], "edge": edge, "batch": 1}, *losses.FIELDS)
        results = Results(tmp_path / machine / "memory.json")
        of_dice = {"loss": "dice_ce", "classes": 2, "edge": 10, "batch": 1}
        results.add({**of_dice, "extra bytes": 16000, "seconds": 1.0}, *losses.FIELDS)
        results.add({**of_dice, "classes": 4, "extra bytes": 8000, "stopped after": 300.0}, *losses.FIELDS)
        results = Results(tmp_path / machine / "slices.json")
        results.add({**rows[0], "edge": 64, "batch": 8}, *losses.FIELDS)
        results = Results(tmp_path / machine / "learned.json")
        for key, taken in (("dice_ce", 0.2), ("conv_mcd", 0.3), ("mumford_shah", 0.21)):
            results.add({"loss": key, "classes": 3, "patch": 48, "step": seconds(step=taken)["step"]}, *learned.FIELDS)
    (tmp_path / "hippocampus").mkdir()
    text = page.page(tmp_path)
    assert "## one" in text
    assert "## two" in text
    assert "hippocampus" not in text
    assert "| dice_ce | 10.0 | 5.0 | 1.00 |  | 0.50 (MONAI) | 1.0 | 0.250 |" in text
    assert "| boundary | 100.0 | 50.0 | 10.00 | 5.0 ms |  |  |  |" in text
    assert "| loss | (1, 2, 10³) | (1, 4, 10³) |" in text
    assert "| dice_ce | 2.0 | 0.5, stopped after 300 s |" in text
    assert "| dice_ce | (8, 3, 64²) | 10.00 | MONAI | 20.00 | 0.50 |" in text
    assert "| conv_mcd | 300 | 1.50 | 300 | 1.50 |" in text
    assert "| mumford_shah, of the image | 210 | 1.05 | 210 | 1.05 |" in text
    pytest.importorskip("matplotlib")
    drawn = page.images(tmp_path)
    linked = {line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")}
    assert linked == {str(path) for path in drawn}
    assert all(svg.startswith("<?xml") and "#2f81f7" in svg for svg in drawn.values())


@QUIET
def test_slices_are_measured_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "slices.json"
    monkeypatch.setattr(slices, "POINTS", ((3, 16, 2),))
    monkeypatch.setattr(sys, "argv", ["slices", "--keys", "dice_ce", "--repeats", "2", "--json", str(file)])
    slices.main()
    (row,) = json.loads(file.read_text())["rows"]
    assert {name: row[name] for name in losses.FIELDS} == {"loss": "dice_ce", "classes": 3, "edge": 16, "batch": 2}
    assert row["seconds"].keys() == {"segloss", "monai", "nnunet"}
    before = file.stat().st_mtime_ns
    slices.main()
    assert file.stat().st_mtime_ns == before, "what has a result is left out"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_measured_kept_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "memory.json"
    command = ["memory", "--keys", "dice_ce", "--classes", "3", "--edge", "64", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", command)
    memory.main()
    before = file.stat().st_mtime_ns
    memory.main()
    assert file.stat().st_mtime_ns == before, "what has a result is left out"
    (row,) = json.loads(file.read_text())["rows"]
    assert {name: row[name] for name in losses.FIELDS} == {"loss": "dice_ce", "classes": 3, "edge": 64, "batch": 1}
    assert memory.times_logits(row) > 0.9, "the gradient is in it"
    monkeypatch.setattr(sys, "argv", [*command, "--again", "--limit", "0"])
    memory.main()
    (row,) = json.loads(file.read_text())["rows"]
    assert row["stopped after"] == 0
    assert "seconds" not in row


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_topology_is_measured_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of clDice give the same value, or the command ends."""
    file = tmp_path / "machine" / "topology.json"
    command = ["topology", "--largest", "8", "--cldice-edge", "12", "--tube-edge", "12", "--repeats", "1"]
    monkeypatch.setattr(topology, "SHAPES", ((8, 8), (6, 6, 6), (64, 64, 64)))
    monkeypatch.setattr(topology, "memory", lambda who, iter_, edge: {"segloss": 1e6, "monai": 3e6}[who])
    monkeypatch.setattr(sys, "argv", [*command, "--json", str(file)])
    topology.main()
    before = file.stat().st_mtime_ns
    topology.main()
    assert file.stat().st_mtime_ns == before, "what has a result is left out"
    found = {(row["what"], row["input"]) for row in json.loads(file.read_text())["rows"]}
    assert found == {
        *((key, shape) for key in topology.PERSISTENT for shape in ("8x8", "6x6x6")),
        *(("soft_cldice", f"2x12x12x12, k = {k}") for k in (3, 10)),
        ("tubed_skeleton", "12x12x12"),
    }
    lines = page.page(tmp_path).splitlines()
    assert any(x.startswith("| betti_prior | 8x8 | smooth | ") for x in lines)
    assert any("| segloss | " in x and "| 1 | MONAI | " in x and "| 3 | " in x for x in lines)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_of_cldice_is_that_of_its_process() -> None:
    """MONAI keeps every step."""
    assert topology.memory("segloss", 3, 32) < topology.memory("monai", 3, 32) / 2


def test_scales_of_the_axes() -> None:
    edges = [edge for _, edge, _ in scaling.AXES["voxels"]]
    classes = [each for each, _, _ in scaling.AXES["classes"]]
    assert (edges[0], edges[-1], classes[0], classes[-1]) == (32, 192, 2, 118)


@pytest.mark.slow
@pytest.mark.parametrize("program", step.PROGRAMS)
def test_steps_run(program: str) -> None:
    """A step of the stock loss and of ours; the loss alone has a gradient at the finest output."""
    code = (
        "import benchmarks.step as s\n"
        "for key in (s.STOCK, 'dice_ce', 'dice_boundary'):\n"
        f"    stepper = s.PROGRAMS[{program!r}](key, 3, 16, 'cpu')\n"
        "    stepper.loss()\n"
        "    used = [x.grad is not None and bool(x.grad.any()) for x in stepper.outputs]\n"
        "    stepper.step()\n"
        "    print('used', key, used)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("used")]
    assert len(lines) == 3
    assert all("[True" in line for line in lines), lines


@pytest.mark.slow
@pytest.mark.parametrize("key", learned.KEYS)
def test_steps_of_losses_that_bring_networks_run(key: str) -> None:
    """Network, heads and opponents move, and the terms of the network or of the image are there."""
    run, loss = learned.stepper(key, 3, 32, "cpu")
    before = [p.detach().clone() for p in loss.parameters()]
    run()
    assert all(not torch.equal(old, p) for old, p in zip(before, loss.parameters(), strict=True))
    assert all(opponent.steps == 1 for opponent in getattr(loss, "opponents", {}).values())
    assert loss.last
    assert all(value.isfinite() for value in loss.last.values())
    assert any(not name.startswith("dice_ce") for name in loss.last)
