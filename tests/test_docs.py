"""Every command that a page or a help text shows is understood by the command line as it stands."""

import re
import shlex
from pathlib import Path

import pytest

from gpt2lab.base.registry import parts
from gpt2lab.cli import VERBS, parse

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _commands(text: str) -> list[str]:
    """Return the commands at the beginning of a line, without what explains them two blanks further on."""
    found = re.findall(r"^ *(?:.*&& )?(gpt2lab [a-z].*?)(?:  .*)?$", text, re.MULTILINE)
    return [command.partition(" #")[0].strip() for command in found]


def _shown() -> list[tuple[str, str]]:
    shown = []
    for page in PAGES:
        blocks = "".join(re.findall(r"```\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
        shown += [(page.name, command) for command in _commands(blocks)]
    for verb in VERBS:
        text = (ROOT / "gpt2lab" / "cli" / f"{verb}.py").read_text(encoding="utf-8")
        shown += [(f"{verb} --help", command) for command in _commands(text.partition('"""\n\n')[0])]
    return shown


@pytest.mark.parametrize(("page", "command"), _shown())
def test_a_shown_command_is_understood(page: str, command: str) -> None:
    words = [word.replace("NAME=VALUE", "a=b") for word in shlex.split(command)[1:]]
    if "--help" in words:
        with pytest.raises(SystemExit) as left:
            parse(words)
        assert left.value.code == 0
    else:
        module, _ = parse(words)
        assert module.__name__.endswith(words[0])


def test_every_page_shows_some_commands_and_every_verb_is_shown() -> None:
    shown = {command.split()[1] for _, command in _shown()}
    assert shown == set(VERBS)


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_parts_that_the_readme_counts_as_there_are_built() -> None:
    built = {part.name for part in parts() if part.built}
    assert {"greedy", "sampling", "beam", "perplexity", "cloze", "adamw"} <= built
