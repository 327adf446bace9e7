"""Hold the pages: size, links, commands that parse, names of code that exist, versions."""

import re
import shlex

import click
import pytest
from conftest import ROOT

from edgecap import __version__
from edgecap.cli.commands import cli
from edgecap.record import SCHEMA

DOCS = sorted((ROOT / "docs").glob("*.md"))
CARDS = sorted((ROOT / "models").glob("*/README.md"))
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = [*TOP, *DOCS, *CARDS, ROOT / "edgecap" / "data" / "README.md"]
COLUMNS, README_LINES, TABLE_LINES = 100, 90, 10

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def text_of(page):
    return page.read_text("utf-8")


def test_the_readme_is_short():
    lines = text_of(ROOT / "README.md").splitlines()
    assert len(lines) <= README_LINES
    block = text_of(ROOT / "README.md").split("<!-- profile")[1].split("<!-- /profile")[0]
    table = [line for line in block.splitlines() if re.match(r"    (fp|bf|int)\d", line)]
    assert 1 < len(table) < TABLE_LINES


@each_page
def test_lines_are_short(page):
    for number, line in enumerate(text_of(page).splitlines(), 1):
        assert len(line) <= COLUMNS, f"{page.name}:{number} has {len(line)} columns"


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_a_page_opens_with_its_purpose_and_is_in_the_index(page):
    heading, blank, purpose = text_of(page).splitlines()[:3]
    assert re.match(r"# \w", heading) and not blank
    assert purpose.startswith("This page "), f"{page.name} does not say what it is for"
    if page.name != "index.md":
        assert f"- [{page.name}]({page.name}): " in text_of(ROOT / "docs" / "index.md")


@each_page
def test_links_resolve(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text_of(page)):
        if not target.startswith(("https://", "http://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@each_page
def test_code_that_a_page_names_exists(page):
    """`edgecap/file.py` and `edgecap/file.py:NAME`, also of scripts, tests and benchmarks."""
    named = re.findall(
        r"`((?:edgecap|scripts|tests|benchmarks|docs)/[\w./-]+)(?::(\w+))?`", text_of(page)
    )
    for path, name in named:
        file = ROOT / path
        assert file.exists(), f"{page.name} names {path}"
        if name:
            defined = rf"^(?:class |def )?{name}\b"
            assert re.search(defined, text_of(file), re.M), f"{path} has no {name}"


# --- commands -------------------------------------------------------------------------------------


def commands_of(text):
    """Yield the `edgecap ...` commands of code blocks, without comments, and those in backticks."""
    joined = re.sub(r"\\\n +", "", text)
    for line in re.findall(r"^ {4}(?:\$ )?(edgecap .*)", joined, re.M):
        command = re.split(r"\s#\s|\s{2,}", line)[0]
        yield from (part.strip() for part in command.split("&&"))
    for line in re.findall(r"`(edgecap [^`]+)`", text):
        yield " ".join(line.split())


def parse(words):
    """Parse as click does: each command and each option must exist."""
    context, command = click.Context(cli, info_name="edgecap"), cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, command, words = command.resolve_command(context, words)
        context = click.Context(command, info_name=name, parent=context)
    command.make_parser(context).parse_args(list(words))


@each_page
def test_commands_parse(page):
    for line in commands_of(text_of(page)):
        words = shlex.split(line)[1:]
        if words[0] == "COMMAND":
            continue
        if words[-1].startswith(
            "--"
        ):  # `edgecap flops --config` in a sentence: its value is left out
            words.append("VALUE")
        try:
            parse(words)
        except click.UsageError as error:
            pytest.fail(f"{page.name}: {line}: {error.format_message()}")


def test_every_command_is_in_the_commands_page():
    commands = re.findall(r"^ {4}edgecap (\S+)", text_of(ROOT / "docs" / "commands.md"), re.M)
    assert set(cli.commands) <= set(commands)


# --- versions -------------------------------------------------------------------------------------


def test_the_changelog_keeps_its_form():
    text = text_of(ROOT / "CHANGELOG.md")
    versions = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", text, re.M)
    assert versions[0] == ("Unreleased", "")
    assert all(date for _, date in versions[1:])
    assert __version__ in [name for name, _ in versions]
    sections = set(re.findall(r"^### (.+)$", text, re.M))
    assert sections <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert len(re.findall(r"^## ", text, re.M)) == len(versions)


def test_the_changelog_knows_the_schema():
    newest = re.search(r"schema (\d+)", text_of(ROOT / "CHANGELOG.md"))
    assert int(newest[1]) == SCHEMA
