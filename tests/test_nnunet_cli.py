"""``segloss nnunet`` and ``segloss doctor``: start-up line, plans, messages."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from environments import Environment
from nnunet_data import Workspace, add_configurations
from typer.testing import CliRunner, Result

from monai_segloss.cli import app, doctor, nnunet
from nnunet_trainers import VARIABLE, discovery_dir, extend_environment, startup
from nnunet_trainers.plans import PlansError, add_configuration

pytest_plugins = "nnunet_fixtures"
Run = Callable[..., Result]


@pytest.fixture
def segloss() -> Run:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments)

    return run


# -- the start-up line ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["", "/mine", "/mine:/yours"])
def test_the_folder_comes_last_and_once(before: str) -> None:
    environ = {VARIABLE: before.replace(":", os.pathsep)} if before else {}
    extend_environment(environ)
    extend_environment(environ)
    wanted = [*before.split(":"), discovery_dir()] if before else [discovery_dir()]
    assert environ[VARIABLE].split(os.pathsep) == wanted


def test_the_package_needs_the_standard_library_only() -> None:
    program = "import sys; before = set(sys.modules); import nnunet_trainers; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {name.split(".")[0] for name in done.stdout.split()} <= {"nnunet_trainers", *sys.stdlib_module_names}


def test_the_discovery_folder_holds_one_module() -> None:
    assert [file.name for file in Path(discovery_dir()).glob("*.py")] == ["segloss_discovery.py"]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "venv")


def test_enable_and_disable(environment: Environment) -> None:
    assert environment.folders() == [""]
    said = environment.segloss("enable")
    file = environment.site / startup.FILE
    assert str(file) in said
    assert file.read_text().count("\n") == 1
    assert environment.folders() == [discovery_dir()]
    assert environment.folders(**{VARIABLE: "/mine"}) == ["/mine", discovery_dir()]
    environment.segloss("enable")
    assert environment.folders() == [discovery_dir()]
    assert str(file) in environment.segloss("disable")
    assert not file.exists()
    assert environment.folders() == [""]
    assert "nothing removed" in environment.segloss("disable")


def test_the_line_does_no_harm_when_the_package_is_gone(environment: Environment) -> None:
    environment.segloss("enable")
    (environment.site / "a_packages.pth").unlink()
    assert environment.ask("print('fine')") == "fine"
    assert environment.folders() == [""]


def test_without_a_folder_to_write_there_is_a_line_for_the_shell(
    segloss: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(startup, "places", lambda: [tmp_path / "file" / "site-packages"])
    result = segloss("nnunet", "enable")
    assert result.exit_code == 1
    assert "cannot be written" in result.output
    assert startup.export_line() in result.output


def test_a_line_that_no_interpreter_reads_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "places", lambda: [tmp_path / "nowhere"])
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(OSError, match="does not act on a file in"):
        startup.enable()
    assert not list((tmp_path / "nowhere").iterdir())


def refuse_to(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let a method of paths end as on a read-only file system."""

    def refused(path: Path, *arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, name, refused)


def test_a_file_that_cannot_be_removed_is_named(segloss: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "places", lambda: [tmp_path])
    (tmp_path / startup.FILE).write_text(startup.LINE)
    refuse_to(monkeypatch, "unlink")
    result = segloss("nnunet", "disable")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert f"{tmp_path / startup.FILE} cannot be removed (Read-only file system)" in result.output


def test_what_is_enabled_on_a_read_only_installation_stays_so(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a user of a container whose image enabled the trainers."""
    environment.segloss("enable")
    monkeypatch.setattr(startup, "places", lambda: [environment.site])
    monkeypatch.setattr(startup.sys, "executable", str(environment.python))
    monkeypatch.setattr(startup, "write_text", lambda *arguments: pytest.fail("the file is written again"))
    assert startup.enable() == environment.site / startup.FILE


@pytest.mark.usefixtures("nnunet")
@pytest.mark.parametrize(
    ("version", "old"), [("2.8", 0), ("2.8.1", 0), ("2.10.0", 0), ("3.0", 0), ("2.7.9", 1), ("2.5.1", 1)]
)
def test_an_older_nnunet_is_refused_with_its_version(
    segloss: Run, version: str, old: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version if name == "nnunetv2" else of(name))
    monkeypatch.setattr(startup, "enable", lambda: tmp_path / startup.FILE)
    model = tmp_path / "model"
    result = segloss("nnunet", "env")
    assert (result.exit_code, result.stdout.strip()) == (0, startup.export_line())
    assert (f"Note: nnU-Net is version {version} here" in result.stderr) == old
    for arguments in (("enable",), ("export", str(model))):
        result = segloss("nnunet", *arguments)
        assert (f"nnU-Net is version {version} here" in result.output) == old
        assert result.exit_code == (1 if old or arguments[0] == "export" else 0)
        assert ("pip install -U 'nnunetv2>=2.8'" in result.output) == old


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("before", ["", "/mine"])
def test_the_line_for_the_shell(segloss: Run, before: str) -> None:
    line = segloss("nnunet", "env").output.strip()
    environ = {"PATH": os.environ["PATH"], **({VARIABLE: before} if before else {})}
    script = f'{line}\nprintf %s "${VARIABLE}"'
    done = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == os.pathsep.join(filter(None, [before, discovery_dir()]))
    assert segloss("nnunet", "env", "--path").output.strip() == discovery_dir()


def test_without_nnunet_there_is_a_note(segloss: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nnunet, "installed", lambda package: False)
    monkeypatch.setattr(startup, "enable", lambda: tmp_path / startup.FILE)
    result = segloss("nnunet", "enable")
    assert (result.exit_code, nnunet.MISSING in result.output) == (0, True)
    result = segloss("nnunet", "export", str(tmp_path))
    assert (result.exit_code, result.output.strip()) == (1, nnunet.MISSING)


@pytest.mark.usefixtures("nnunet")
def test_export_of_something_else(segloss: Run, tmp_path: Path) -> None:
    result = segloss("nnunet", "export", str(tmp_path))
    assert (result.exit_code, "is no model folder of nnU-Net" in result.output) == (1, True)


@pytest.mark.usefixtures("nnunet")
def test_export_says_the_whole_command(segloss: Run, tmp_path: Path) -> None:
    model = tmp_path / "my models" / "nnUNetTrainerDice__nnUNetPlans__tiny"
    for fold in ("fold_0", "fold_2"):
        (model / fold).mkdir(parents=True)
        torch.save({"trainer_name": "nnUNetTrainerDice", "segloss": {}}, model / fold / "checkpoint_final.pth")
    (model / "plans.json").write_text("{}")
    result = segloss("nnunet", "export", str(model))
    said = shlex.split(result.output.partition("Predict with: ")[2])
    target = str(model / "exported" / "nnUNetTrainer__nnUNetPlans__tiny")
    assert said[:6] == ["nnUNetv2_predict_from_modelfolder", "-m", target, "-f", "0", "2"]
    assert said[6:] == ["-i", "IMAGES", "-o", "OUTPUT"]


@pytest.mark.usefixtures("nnunet")
@pytest.mark.parametrize(
    ("folds", "options"),
    [
        ({"0": ["best"]}, ["-f", "0", "-chk", "checkpoint_best.pth"]),
        ({"0": ["latest"]}, ["-f", "0", "-chk", "checkpoint_latest.pth"]),
        ({"0": ["best", "latest"], "1": ["best"]}, ["-f", "0", "1", "-chk", "checkpoint_best.pth"]),
        ({"all": ["best", "final"]}, ["-f", "all"]),
        ({"0": ["best", "final"], "1": ["best", "latest"]}, ["-f", "0"]),
    ],
)
def test_export_says_which_checkpoint_there_is(
    segloss: Run, tmp_path: Path, folds: dict[str, list[str]], options: list[str]
) -> None:
    model = tmp_path / "nnUNetTrainerDice__nnUNetPlans__tiny"
    for fold, names in folds.items():
        (model / f"fold_{fold}").mkdir(parents=True)
        for name in names:
            content = {"trainer_name": "nnUNetTrainerDice", "segloss": {}}
            torch.save(content, model / f"fold_{fold}" / f"checkpoint_{name}.pth")
    (model / "plans.json").write_text("{}")
    result = segloss("nnunet", "export", str(model))
    said = shlex.split(result.output.partition("Predict with: ")[2].splitlines()[0])
    assert said[3:] == [*options, "-i", "IMAGES", "-o", "OUTPUT"]
    assert ("fold_1 without checkpoint_final.pth" in result.output) == (len(folds) == 2 and "-chk" not in options)


# -- plans ----------------------------------------------------------------------------------------------------------

PLANS: dict[str, Any] = {
    "configurations": {
        "2d": {"batch_size": 9},
        "3d_fullres": {"batch_size": 2},
        "3d_lowres": {"inherits_from": "3d_fullres", "next_stage": "3d_cascade_fullres"},
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
    }
}


@pytest.fixture
def plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "Dataset007_Seven" / "nnUNetPlans.json"
    file.parent.mkdir()
    file.write_text(json.dumps(PLANS))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    return file


def configurations(plans: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(plans.read_text())["configurations"]
    assert {name: found[name] for name in PLANS["configurations"]} == PLANS["configurations"]
    return found


@pytest.mark.parametrize("dataset", ["7", "Dataset007_Seven"])
def test_plan_adds_a_configuration_and_touches_no_other(segloss: Run, plans: Path, dataset: str) -> None:
    options = ("--loss", "cross_entropy", "--set", "weight=[1,2,5]", "--set", "label_smoothing=0.1")
    result = segloss("nnunet", "plan", dataset, "3d_fullres", "weighted", *options)
    assert result.exit_code == 0, result.output
    assert f"nnUNetv2_train {dataset} 3d_fullres_weighted 0 -tr nnUNetTrainerSegLoss" in result.output
    loss = {"loss": "cross_entropy", "arguments": {"weight": [1, 2, 5], "label_smoothing": 0.1}}
    assert configurations(plans)["3d_fullres_weighted"] == {"inherits_from": "3d_fullres", "segloss": loss}


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("Dataset1234_More", "1234"),
        ("Dataset1234_More", "Dataset1234_More"),
        ("Dataset123_Fewer", "123"),
        ("Dataset12345_Most", "12345"),
        ("Dataset001_One", "001"),
    ],
)
def test_a_data_set_is_found_by_any_number(segloss: Run, plans: Path, name: str, given: str) -> None:
    for each in ("Dataset1234_More", "Dataset123_Fewer", "Dataset12345_Most", "Dataset001_One"):
        shutil.copytree(plans.parent, plans.parent.with_name(each))
    result = segloss("nnunet", "plan", given, "2d", "x", "--loss", "dice")
    assert result.exit_code == 0, result.output
    added = [file.parent.name for file in plans.parent.parent.glob("*/*.json") if "2d_x" in configurations(file)]
    assert added == [name]


def test_another_name_of_plans_is_refused_with_those_there_are(segloss: Run, plans: Path) -> None:
    shutil.copy(plans, plans.with_name("nnUNetResEncUNetMPlans.json"))
    for other in ("dataset", "splits_final"):
        plans.with_name(f"{other}.json").write_text("[]")
    result = segloss("nnunet", "plan", "7", "2d", "x", "--loss", "dice", "--plans", "nnUNetPlannerResEncM")
    assert result.exit_code == 1
    assert "it has nnUNetPlans, nnUNetResEncUNetMPlans; choose one with --plans" in " ".join(result.output.split())


@pytest.mark.parametrize("parent", ["3d_lowres", "3d_cascade_fullres"])
def test_the_stages_of_a_cascade_stay_together(segloss: Run, plans: Path, parent: str) -> None:
    assert segloss("nnunet", "plan", "7", parent, "mine", "--loss", "dice").exit_code == 0
    found = configurations(plans)
    assert found["3d_lowres_mine"]["next_stage"] == "3d_cascade_fullres_mine"
    assert found["3d_cascade_fullres_mine"]["previous_stage"] == "3d_lowres_mine"
    assert found["3d_cascade_fullres_mine"]["inherits_from"] == "3d_cascade_fullres"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mix.json", '{"terms": {"dice": 1, "focal": {"weight": 0.5}}}'),
        ("mix.yaml", "terms: {dice: 1, focal: {weight: 0.5}}"),
    ],
)
def test_a_sum_of_losses_comes_from_a_file(segloss: Run, plans: Path, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    result = segloss("nnunet", "plan", "7", "2d", "mix", "--config", str(tmp_path / name))
    assert result.exit_code == 0, result.output
    assert configurations(plans)["2d_mix"]["segloss"] == {"terms": {"dice": {"weight": 1}, "focal": {"weight": 0.5}}}


def test_a_taken_name_gives_way_only_when_asked(plans: Path) -> None:
    add_configuration(plans, "2d", "mine", {"loss": "dice"})
    add_configuration(plans, "2d", "mine", {"loss": "dice"})
    with pytest.raises(PlansError, match="'2d_mine' exists with other content"):
        add_configuration(plans, "2d", "mine", {"loss": "focal"})
    add_configuration(plans, "2d", "mine", {"loss": "focal"}, replace=True)
    assert configurations(plans)["2d_mine"]["segloss"] == {"loss": "focal"}


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("7", "3d_fullre", "x", "--loss", "dice"), 1, "no configuration '3d_fullre'"),
        (("7", "2d", "a__b", "--loss", "dice"), 1, "expected letters and digits"),
        (("8", "2d", "x", "--loss", "dice"), 1, "0 data sets '8'"),
        (("7", "2d", "x", "--loss", "dise"), 2, "did you mean 'dice'"),
        (("7", "2d", "x", "--loss", "dice", "--set", "smoth_nr=1"), 2, "did you mean 'smooth_nr'"),
        (("7", "2d", "x", "--loss", "dice", "--set", "smooth_nr"), 2, "is not name=value"),
        (("7", "2d", "x", "--loss", "dice", "--set", "smooth_nr=one"), 2, "is no JSON value"),
        (("7", "2d", "x"), 2, "give either --loss"),
        (("7", "2d", "x", "--loss", "dice", "--plans", "Other"), 1, "run nnUNetv2_plan_and_preprocess -d 7 first"),
    ],
)
def test_plan_refuses_with_a_sentence(
    segloss: Run, plans: Path, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    before = plans.read_bytes()
    result = segloss("nnunet", "plan", *arguments)
    words = " ".join(result.output.replace("│", " ").split())
    assert result.exit_code == code, result.output
    assert sentence in words
    assert plans.read_bytes() == before


@pytest.mark.parametrize("text", ["", "[]", '{"configurations": 1', "{}"])
def test_plan_refuses_a_file_that_holds_no_plans(segloss: Run, plans: Path, text: str) -> None:
    plans.write_text(text)
    result = segloss("nnunet", "plan", "7", "2d", "x", "--loss", "dice")
    assert (result.exit_code, "holds no plans of nnU-Net" in " ".join(result.output.split())) == (1, True), (
        result.output
    )
    assert plans.read_text() == text


def test_plan_without_the_folder_of_nnunet(segloss: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "gone"))
    result = segloss("nnunet", "plan", "7", "2d", "x", "--loss", "dice")
    assert (result.exit_code, "which is no folder" in " ".join(result.output.split())) == (1, True)
    for value in (None, ""):
        monkeypatch.delenv("nnUNet_preprocessed", raising=False)
        if value is not None:
            monkeypatch.setenv("nnUNet_preprocessed", value)
        result = segloss("nnunet", "plan", "7", "2d", "x", "--loss", "dice")
        assert (result.exit_code, "nnUNet_preprocessed is not set" in result.output) == (1, True)


# -- the trainer that reads plans -------------------------------------------------------------------------------------


def test_the_loss_in_the_plans_is_trained_and_guarded(space: Workspace, segloss: Run) -> None:
    options = ("--loss", "tversky", "--set", "alpha=0.4")
    assert segloss("nnunet", "plan", "1", "tiny", "mine", *options).exit_code == 0
    trainer = space.trainer("nnUNetTrainerSegLoss_seed1_1epochs_2iterations", configuration="tiny_mine")
    trainer.initialize()
    assert (trainer.loss.loss.alpha, trainer.loss.loss.beta) == (0.4, 0.7)
    assert trainer.configuration_record()["arguments"]["include_background"] is False
    space.trainer("nnUNetTrainerTversky_alpha0p4", configuration="tiny_mine").initialize()
    with pytest.raises(RuntimeError, match=r"plan of 'tiny_mine' has another configuration: .*alpha is 0\.4 there"):
        space.trainer("nnUNetTrainerTversky", configuration="tiny_mine").initialize()
    with pytest.raises(LookupError, match="names no loss: make one"):
        space.trainer("nnUNetTrainerSegLoss").initialize()
    add_configurations(space.plans(), {"tiny_wrong": {"inherits_from": "tiny", "segloss": {"loss": "dise"}}})
    for name in ("nnUNetTrainerSegLoss", "nnUNetTrainerDice"):
        with pytest.raises(ValueError, match="'segloss' in configuration 'tiny_wrong': no loss is called 'dise'"):
            space.trainer(name, configuration="tiny_wrong").initialize()


@pytest.mark.usefixtures("nnunet")
def test_planning_again_keeps_the_configuration(
    space: Workspace, segloss: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

    segloss("nnunet", "plan", "1", "3d_fullres", "mine", "--loss", "focal")
    before = json.loads(space.plans().read_text())["configurations"]["3d_fullres_mine"]
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    ExperimentPlanner("Dataset001_labels").plan_experiment()
    assert json.loads(space.plans().read_text())["configurations"]["3d_fullres_mine"] == before


# -- doctor ---------------------------------------------------------------------------------------------------------


def test_doctor_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("nnUNet_raw", raising=False)
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "none"))
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    raw, preprocessed, results = doctor.folders()
    assert (raw.ok, raw.fix) == (False, "export nnUNet_raw=/path/to/raw")
    assert (preprocessed.ok, preprocessed.fix) == (False, f"mkdir -p {tmp_path / 'none'}")
    assert results.ok
    assert doctor.versions("no-such-package", "1").fix == doctor.INSTALL
    old = doctor.versions("pytest", "999.1")
    assert (old.ok, old.fix) == (False, "expected at least 999.1: pip install -U pytest")
    broken = doctor.imports("no_such_module", "mend it")
    assert (broken.ok, broken.found) == (False, "ModuleNotFoundError: No module named 'no_such_module'")


def test_doctor_tells_of_a_broken_torchvision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    broken = doctor.imports("torchvision", "install both of one index")
    assert broken == ("import torchvision", False, "RuntimeError: operator torchvision::nms does not exist", broken.fix)


def test_doctor_tells_of_a_folder_of_others_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text("import no_such_module")
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(tmp_path), discovery_dir()]))
    (failed,) = doctor.discovery()
    assert (failed.ok, failed.found) == (False, "ModuleNotFoundError: No module named 'no_such_module'")
    assert failed.fix.endswith("fix or remove the one that fails")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "empty"))
    (missing,) = doctor.discovery()
    assert (missing.ok, missing.fix.split(" (")[0]) == (False, "segloss nnunet enable")


@pytest.mark.parametrize("compiler", ["none", "false"])
def test_doctor_says_in_one_line_that_nothing_compiles(compiler: str, tmp_path: Path) -> None:
    code = "import warnings; warnings.simplefilter('error'); from monai_segloss.cli import doctor; print(*doctor.kernels())"
    environment = {**os.environ, "SEGLOSS_COMPILER": compiler, "SEGLOSS_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    why = "there is no C++ compiler" if compiler == "none" else "false failed: "
    assert line.startswith("kernels on the CPU None ")
    assert why in line
    assert "statistics by PyTorch, distances by" in line


def test_doctor_fails_when_a_check_fails(segloss: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad, note = (doctor.Check("one", ok, "[found]", "mend [it]") for ok in (True, False, None))
    monkeypatch.setattr(doctor, "examine", lambda: iter([good, note]))
    assert segloss("doctor").exit_code == 0
    monkeypatch.setattr(doctor, "examine", lambda: iter([good, bad, note]))
    result = segloss("doctor")
    assert result.exit_code == 1
    assert "mend [it]" in result.output
