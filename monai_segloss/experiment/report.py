"""The report of a comparison from its tables: one page, a text for the paper, the figures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import pandas as pd

from monai_segloss.experiment import accounts, overlays, protocol, published, sections
from monai_segloss.experiment.analysis import Analysis, analyze
from monai_segloss.experiment.cells import DASH, Figure, Section, Table, html, markdown, markdown_text, quoted
from monai_segloss.experiment.findings import arms, summary
from monai_segloss.experiment.measures import Options
from monai_segloss.experiment.methods import methods
from monai_segloss.experiment.statistics import Settings
from monai_segloss.experiment.tables import TableError, Tables, read
from monai_segloss.files import atomic, read_json, write_text


def write(folder: Path, baseline: str | None = None, settings: Settings | None = None) -> Path:
    """Make the report of the tables in ``folder/tables``: ``report.html``, ``report.md``, ``figures``.

    Args:
        folder: of a comparison.
        baseline: an arm; None: the one with the most runs.
        settings: of the statistics.

    Returns:
        The page.

    Raises:
        TableError: a table is missing or not what it should be.
        ValueError: no such arm, one arm alone, or several data sets.
    """
    tables = read(folder / "tables")
    settings = settings or Settings()
    return publish(folder, tables, analyze(tables, baseline, settings), settings)


def publish(folder: Path, tables: Tables, analysis: Analysis, settings: Settings) -> Path:
    """Write what `write` writes, of tables that are already read and analyzed."""
    options = _options(folder / "tables" / "options.json")
    parts = _sections(folder, tables, analysis, settings, options)
    with atomic(folder / "comparisons.csv") as part:
        analysis.comparisons.to_csv(part, index=False)
    drawings = folder / "figures"
    drawings.mkdir(parents=True, exist_ok=True)
    drawn = {figure.file: figure.content for section in parts for figure in section.figures}
    for old in (*drawings.glob("*.svg"), *drawings.glob("*.png")):
        if old.name not in drawn:
            old.unlink()
    for name, content in drawn.items():
        with atomic(drawings / name) as part:
            part.write_bytes(content)
    text = methods(tables, analysis, settings, options)
    first = summary(tables, analysis, settings)
    downloads = [
        "comparisons.csv",
        *sorted(f"tables/{file.name}" for file in (folder / "tables").iterdir()),
        "report.md",
    ]
    write_text(folder / "report.md", _markdown(title(tables, analysis), first, analysis, text, parts))
    page = folder / "report.html"
    write_text(page, _page(title(tables, analysis), first, analysis, text, parts, downloads))
    return page


def title(tables: Tables, analysis: Analysis) -> str:
    """Of page and text."""
    count = len(arms(tables)) - 1
    counted = f"{count} arm{'s' if count > 1 else ''}"
    return f"{counted} against {quoted(analysis.baseline)} on {quoted(tables.runs['dataset'].iloc[0])}"


def _options(file: Path) -> Options | None:
    """How it was measured, where that is known."""
    if not file.is_file():
        return None
    content = read_json(file)
    try:
        return Options(**{**content, "sizes": tuple(content["sizes"])})
    except (TypeError, KeyError) as error:
        raise TableError(f"{file} does not hold the options of the measures: {error}.") from None


def _sections(
    folder: Path, tables: Tables, analysis: Analysis, settings: Settings, options: Options | None
) -> list[Section]:
    cases: pd.DataFrame = tables.joined()
    return [
        sections.differences(tables, analysis, settings),
        *_protocol(folder, tables),
        sections.rank_section(tables, analysis),
        sections.class_section(tables, analysis, cases),
        sections.sizes_section(tables, cases, options.sizes if options else (), settings),
        sections.points_section(tables, analysis, cases),
        accounts.calibration(tables, analysis),
        accounts.learning(tables, analysis),
        accounts.cost(tables),
        accounts.disagreement(tables, overlays.read(folder)),
        accounts.failed(tables, cases),
        accounts.design(tables),
    ]


def _protocol(folder: Path, tables: Tables) -> list[Section]:
    """The published comparison that this one follows, if it does."""
    found, comparison = protocol.followed(folder), folder / "comparison.json"
    return [published.section(found, tables, read_json(comparison) if comparison.is_file() else {})] if found else []


def _page(
    heading: str,
    first: list[str],
    analysis: Analysis,
    text: Mapping[str, Sequence[str]],
    parts: list[Section],
    downloads: list[str],
) -> str:
    import jinja2

    source = files("monai_segloss.experiment").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(sentence=html, inline=_inline)
    return environment.from_string(source).render(
        heading=heading, summary=first, warnings=analysis.warnings, methods=text, sections=parts, downloads=downloads
    )


def _inline(figure: Figure) -> str:
    kind = {"svg": "svg+xml"}.get(figure.kind, figure.kind)
    return f"data:image/{kind};base64,{base64.b64encode(figure.content).decode()}"


def _markdown(
    heading: str, first: list[str], analysis: Analysis, text: Mapping[str, Sequence[str]], parts: list[Section]
) -> str:
    out = [f"# {markdown(heading)}", *map(markdown, first), "## Methods and limits"]
    for name, sentences in text.items():
        if name != "Results":
            out += [f"### {name}", " ".join(map(markdown, sentences))]
    out.append("## Results")
    for section in parts:
        out += [f"### {section.title}", *map(markdown, section.text), *map(_rows, section.tables)]
        out += [f"![{markdown_text(each.alt)}](figures/{each.file})" for each in section.figures]
    return "\n\n".join(out) + "\n"


def _rows(table: Table) -> str:
    def line(cells: list[str]) -> str:
        return f"| {' | '.join(cells)} |"

    reasons = table.reasons
    head = [
        line([markdown_text(each) for each in table.columns]),
        line([*["---"] * table.names, *["---:"] * (len(table.columns) - table.names)]),
    ]
    body = [
        line(
            [
                markdown_text(f"{cell.text} ({reasons.index(cell.reason) + 1})" if cell.reason else cell.text)
                for cell in row
            ]
        )
        for row in table.rows
    ]
    notes = "; ".join(f"({i + 1}) {reason}" for i, reason in enumerate(reasons))
    below = [f"\n{DASH}: {markdown_text(notes)}"] if notes else []
    return "\n".join([f"{markdown_text(table.caption)}\n", *head, *body, *below])
