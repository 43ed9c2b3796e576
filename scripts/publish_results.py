"""Copy a study's report into docs/results: SLUG.md and the figures it shows in SLUG/; its verdicts go into the package.

    python scripts/publish_results.py RUN_FOLDER [--found "ONE LINE"] [--note NOTE.md]

ONE LINE says what was found: `gpt2lab papers NAME` and README's table show it; without it, the line that is there already is
kept. README's row of the paper and the guide's table of times follow. NOTE.md becomes the section "How to read this";
without it, the section of the page that is there already is kept. Figures are cleaned as those of a page are: the run's
folder may have been copied from elsewhere.
"""

import argparse
import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from gpt2lab.base.json_files import read_text
from gpt2lab.plots.figures import tidy_svg
from gpt2lab.runs.home import is_name

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PAPERS = ROOT / "gpt2lab" / "papers"
FIGURE = re.compile(r"(!\[(?:[^\]\\\n]|\\.)*\])\(((?:[\w.%-]+/)*figures/[\w.%-]+\.svg)\)")
"""A figure as `gpt2lab.runs.report.markdown` links it: words, place in the run's folder."""
HEADING, NEXT = "## How to read this", "## Claim by claim"


def main() -> None:
    """Publish one study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--found", default="")
    parser.add_argument("--note", type=Path)
    asked = parser.parse_args()
    report = read_text(asked.run / "report.md")
    slug = re.match(r"(.+?)-(smoke|laptop|gpu|paper)-\d+$", asked.run.name)
    name = slug.group(1) if slug else json.loads((asked.run / "settings.json").read_text())["paper"]
    if not is_name(name):  # what is there already is deleted
        raise SystemExit(f"{asked.run / 'settings.json'}: {name!r} is no name of a paper")
    package = PAPERS / name.replace("-", "_")
    known = package / "verdicts.toml"
    found = asked.found or (tomllib.loads(read_text(known))["found"] if known.is_file() else "")
    if package.is_dir() and not found:
        raise SystemExit("--found: say in one line what was found")
    page, folder = RESULTS / f"{name}.md", RESULTS / name
    note = asked.note.read_text(encoding="utf-8").strip() if asked.note else _kept(page)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    report = FIGURE.sub(lambda found: f"{found[1]}({_copied(unquote(found[2]), asked.run, folder)})", report)
    if note:
        report = report.replace(NEXT, f"{HEADING}\n\n{note}\n\n{NEXT}", 1)
    page.write_text(report, encoding="utf-8")
    if package.is_dir():  # a comparison is no paper
        known.write_text(verdicts(report, found), encoding="utf-8")
        _tell(name, tomllib.loads(read_text(known)))


def _tell(name: str, shipped: dict[str, Any]) -> None:
    """Write what was found into README's table, and the time it took into the guide's, where a row is there."""
    rows = (
        (
            ROOT / "README.md",
            rf"[^|\n]*( \(\[report\]\(docs/results/{name}\.md\)\) \|)",
            f" {shipped['found']}",
        ),
        (
            ROOT / "docs" / "guide" / "command-line.md",
            rf"(?<=/{name}\.md\) \|)[^|\n]*( \|)",
            f" {shipped['took']}",
        ),
    )
    for page, row, words in rows:
        text = page.read_text(encoding="utf-8")
        page.write_text(re.sub(row, lambda end, words=words: words + end[1], text), encoding="utf-8")


def verdicts(report: str, found: str) -> str:
    """Return the verdicts.toml of a report in Markdown: what was found, scale, seeds, time, the verdict on each claim."""
    scale, seeds, took = re.search(r"(\w+) scale · (\d+) of \d+ seeds? · (\w+) ·", report).groups()
    table = report.partition("## Verdicts")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| .*? \| \S+ \*\*(.+?)\*\* \|", table, re.MULTILINE)
    lines = [
        f"found = {json.dumps(found, ensure_ascii=False)}",  # a JSON string is a TOML string
        f'scale = "{scale}"',
        f"seeds = {seeds}",
        f'took = "{took}"',
        "",
        "[verdicts]",
        *(f'{name} = "{verdict}"' for name, verdict in rows),
    ]
    return "\n".join(lines) + "\n"


def _copied(place: str, run: Path, folder: Path) -> str:
    """Copy one figure of a run; return its place beside the page."""
    if ".." in Path(place).parts:
        raise SystemExit(f"{run / 'report.md'}: shows {place}, which is not in the run's folder")
    flat = place.replace("figures/", "").replace("/", "-")  # of a seed or an arm: seed0-figure.svg
    (folder / flat).write_text(tidy_svg(read_text(run / place)), encoding="utf-8")
    return quote(f"{folder.name}/{flat}")


def _kept(page: Path) -> str:
    """The note of the page as it is; empty if there is none."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    return text.partition(HEADING)[2].partition(NEXT)[0].strip()


if __name__ == "__main__":
    main()
