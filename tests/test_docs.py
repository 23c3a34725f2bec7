"""The front page is short and leads somewhere; the site builds, and its generated pages leave nothing out."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import reliability

pytest.importorskip("mkdocs", reason="the site needs the extra docs")
from mkdocs.commands.build import build
from mkdocs.config import load_config

from vertebra_kp.cli.commands import COMMANDS
from vertebra_kp.cli.main import build_parser, check_needs
from vertebra_kp.config.schema import Config

REPOSITORY = Path(__file__).parents[1]
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(?:time )?vertebra-kp ([a-z][^`]* --(?!help)[^`]+)`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
TEXTS = ("*.md", "docs/**/*.md", "experiments/README.md", "experiments/*/README.md", "vertebra_kp/**/*.md")
PRIVATE_WORDS = (
    "told apart",
    "drawn film",
    "second look",
    "first look",
    "as odd as",
    "X-ray films",
    "distrust film",
)


def hooks():
    spec = importlib.util.spec_from_file_location("docs_hooks", REPOSITORY / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_front_page_is_short():
    assert len((REPOSITORY / "README.md").read_bytes()) <= 8_000


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_every_link_of_the_pages_outside_the_site_leads_to_a_file(page):
    links = LINK.findall((REPOSITORY / page).read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if "://" not in link and not (REPOSITORY / link).exists()] == []


def test_commands_within_sentences_and_tables_are_taken_too():
    found = [
        call
        for pattern in ("*.md", "docs/**/*.md")
        for page in REPOSITORY.glob(pattern)
        for call in INLINE.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    ]
    assert len(found) > 10
    for call in found:
        check_needs(build_parser().parse_args(shlex.split(call)))


def test_the_table_of_reliability_is_that_of_its_results():
    assert reliability.read()
    assert reliability.PAGE.read_text(encoding="utf-8") == reliability.page(), "python tests/reliability.py"


def test_pages_use_the_words_of_the_field():
    pages = [path for pattern in TEXTS for path in REPOSITORY.glob(pattern)]
    found = {
        (page.name, word) for page in pages for word in PRIVATE_WORDS if word in page.read_text(encoding="utf-8")
    }
    assert found == set()


def test_the_config_reference_has_every_field():
    page = hooks().config_page()
    for name, info in Config.model_fields.items():
        assert f"| `{name}` |" in page
        for inner in getattr(info.annotation, "model_fields", ()):
            assert f"| `{inner}` |" in page


def test_a_hidden_alias_is_not_in_the_command_reference():
    page = hooks().command_page("evaluate", hooks().commands()["evaluate"])
    assert "`--network`" in page
    assert "--checkpoint" not in page


@pytest.mark.slow
def test_the_site_builds_without_a_warning_loads_nothing_from_elsewhere_and_leaves_no_command_or_study_out(
    tmp_path,
):
    config = load_config(str(REPOSITORY / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True)
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    site = tmp_path / "site"
    assert {path.stem for path in site.glob("reference/commands/*.html")} == {*COMMANDS, "index"}
    loaded = re.compile(r'<(?:script|link|img)[^>]+(?:src|href)="https?://[^"]*')
    assert [page for page in site.rglob("*.html") if loaded.search(page.read_text(encoding="utf-8"))] == []
    studies = {path.parent.name for path in REPOSITORY.glob("experiments/*/README.md")}
    assert {path.parent.name for path in site.glob("results/studies/*/index.html")} == studies
