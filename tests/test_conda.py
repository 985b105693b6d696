"""The conda recipe asks for what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import monai_segloss

ROOT = Path(__file__).resolve().parent.parent
NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base", "ray": "ray-default"}
"""Packages with another name on conda-forge."""


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "conda" / "recipe" / "recipe.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def wanted(requirement: str) -> str:
    """A requirement of pip in the words of conda; extras in brackets are those of other packages."""
    name, _, least = re.sub(r"\[.*\]", "", requirement).partition(">=")
    return f"{NAMES.get(name, name)} >={least}"


def test_name_version_and_license(recipe: dict[str, Any], project: dict[str, Any]) -> None:
    about = project["project"]
    assert recipe["package"]["name"] == about["name"]
    assert recipe["context"]["version"] == about["version"] == monai_segloss.__version__
    assert f">={recipe['context']['python_min']}" == about["requires-python"]
    assert recipe["about"]["license"] == about["license"]
    assert recipe["about"]["summary"] == about["description"]
    assert (ROOT / recipe["about"]["license_file"]).exists()


def test_commands(recipe: dict[str, Any], project: dict[str, Any]) -> None:
    commands = project["project"]["scripts"]
    assert recipe["build"]["python"]["entry_points"] == [f"{name} = {where}" for name, where in commands.items()]


def test_requirements(recipe: dict[str, Any], project: dict[str, Any]) -> None:
    needs = recipe["requirements"]
    assert needs["run"][0] == "python >=${{ python_min }}"
    assert needs["run"][1:] == [wanted(each) for each in project["project"]["dependencies"]]
    assert {wanted(each) for each in project["build-system"]["requires"]} <= set(needs["host"])
    extras = project["project"]["optional-dependencies"].values()
    optional = {wanted(each) for extra in extras for each in extra if not each.startswith(project["project"]["name"])}
    assert set(needs["run_constraints"]) == optional
    assert len(needs["run_constraints"]) == len(optional)
