"""Writes the pages of the site that follow from the code: commands, config fields, studies, model card, changelog.

Commands come from the argument parser (``vertebra_kp.cli.main.build_parser``), config fields from the JSON schema
of a config, studies from ``experiments/``. MkDocs calls ``on_config``, ``on_files`` and ``on_page_markdown``.
"""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from vertebra_kp.cli.main import build_parser
from vertebra_kp.config.io import config_json_schema

REPOSITORY = Path(__file__).parents[1]
STUDIES = REPOSITORY / "experiments"
COPIED = {  # pages that stand elsewhere in the repository
    "reference/changelog.md": REPOSITORY / "CHANGELOG.md",
    "reference/ap-spine.md": REPOSITORY / "vertebra_kp/models/pretrained/ap-spine/MODEL_CARD.md",
    "reference/ap-spine-held-out.md": REPOSITORY / "vertebra_kp/models/pretrained/ap-spine-held-out/MODEL_CARD.md",
    "reference/la-spine.md": REPOSITORY / "vertebra_kp/models/pretrained/la-spine/MODEL_CARD.md",
}
SHOWN = (".md", ".png", ".svg", ".csv", ".yaml")  # of a study; predictions and run folders stay out of the site
COMMANDS = "reference/commands"
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def commands() -> dict[str, argparse.ArgumentParser]:
    """Every command's parser by its name, in the order of the help."""
    actions = build_parser()._actions
    (subparsers,) = (action for action in actions if isinstance(action, argparse._SubParsersAction))
    return dict(subparsers.choices)


def commands_page() -> str:
    """The help of all commands as the terminal shows it, and a link to each."""
    parts = [
        "# Commands",
        "`vertebra-kp COMMAND`, or `python -m vertebra_kp COMMAND`. Every flag has one meaning in all commands. "
        "The scripts in `scripts/` call them, too: `python scripts/train.py ...` is `vertebra-kp train ...`.",
        f"```text\n{build_parser().format_help()}```",
        " · ".join(f"[{name}]({name}.md)" for name in commands()),
    ]
    return "\n\n".join(parts)


def command_page(name: str, parser: argparse.ArgumentParser) -> str:
    """Usage and arguments of one command; hidden aliases are left out."""
    formatter = parser._get_formatter()
    rows = ["| argument | value | meaning |", "|---|---|---|"]
    for action in parser._actions:
        if action.help is None or action.help is argparse.SUPPRESS or isinstance(action, argparse._HelpAction):
            continue
        value = formatter._format_args(action, action.dest.upper()).replace(",", ", ")  # may break there
        names = ", ".join(f"`{option}`" for option in action.option_strings) or f"`{value}`"
        needed = "**Required.** " if action.required else ""
        rows.append(
            f"| {names} | {_code(value if action.option_strings else '')} "
            f"| {needed}{_text(formatter._expand_help(action))} |"
        )
    usage = re.sub(r"^(?:usage: | {7})", "", parser.format_usage(), flags=re.MULTILINE)
    table = "\n".join(rows)
    return "\n\n".join([f"# {name}", parser.description or "", f"```text\n{usage}```", table])


def config_page() -> str:
    """One table per section of the config: field, type with its range, default, meaning."""
    parts = [
        "# Config reference",
        "Unknown keys, wrong types and values out of range are errors, all reported at once. "
        "`vertebra-kp config-schema` prints the same as JSON schema, for editors.",
    ]
    schema = config_json_schema()
    for path, section in _sections(schema, schema["$defs"]):
        rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
        for field, about in section["properties"].items():
            default = json.dumps(about["default"], ensure_ascii=False) if "default" in about else ""
            if field in section.get("required", ()):
                default = "required"
            if _refs(about):
                kind, default = f"[section](#{_anchor(f'{path}.{field}')})", ""
            else:
                kind = _code(_kind(about))
            rows.append(f"| `{field}` | {kind} | {_code(default)} | {_text(about.get('description', ''))} |")
        title = path.lstrip(".") or "top level"
        text = _text(section.get("description", ""))
        parts += [f"## {title} {{#{_anchor(path)}}}", text, "\n".join(rows)]
    return "\n\n".join(parts)


def studies_page() -> str:
    """``experiments/README.md`` with links to the studies' own pages; every study must stand in it."""
    text = (STUDIES / "README.md").read_text(encoding="utf-8")
    if missing := [folder.name for folder in _studies() if f"]({folder.name})" not in text]:
        raise PluginError(f"experiments/README.md lacks {', '.join(missing)}: add a row with question and verdict")
    return re.sub(r"\]\((\d\d_\w+)\)", r"](studies/\1/README.md)", text)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the pages of the commands into the navigation."""
    reference = next(entry["Reference"] for entry in config.nav if "Reference" in entry)
    reference[0] = {
        "Commands": [f"{COMMANDS}/index.md", *({name: f"{COMMANDS}/{name}.md"} for name in commands())]
    }
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds every generated page, and the studies with their tables and plots."""
    pages = {uri: path.read_text(encoding="utf-8") for uri, path in COPIED.items()}
    pages |= {f"{COMMANDS}/{name}.md": command_page(name, parser) for name, parser in commands().items()}
    pages |= {f"{COMMANDS}/index.md": commands_page(), "reference/config.md": config_page()}
    pages["results/studies.md"] = studies_page()
    for uri, content in pages.items():
        files.append(File.generated(config, uri, content=content))
    for folder in _studies():
        for path in sorted([*folder.glob("*"), *folder.glob("plots/*")]):
            if path.suffix in SHOWN:
                uri = f"results/studies/{path.relative_to(STUDIES).as_posix()}"
                files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Studies link to folders, as code hosts open them: a site needs the file in them, and shows the plots."""
    if not (found := re.fullmatch(r"results/studies/(\w+)/README\.md", page.file.src_uri)):
        return markdown
    markdown = re.sub(r"\]\((\.\./\d\d_\w+)/?\)", r"](\1/README.md)", markdown)
    markdown = markdown.replace(", [plots](plots)", "")
    plots = sorted(path.name for path in (STUDIES / found[1] / "plots").glob("*.png") if path.name not in markdown)
    shown = "\n".join(f"![{name}](plots/{name})" for name in plots)
    return "\n\n".join(["[All studies](../../studies.md)", markdown, *(["## Plots", shown] if plots else [])])


def _studies() -> list[Path]:
    return sorted(path.parent for path in STUDIES.glob("[0-9][0-9]_*/README.md"))


def _sections(
    section: dict[str, Any], known: dict[str, Any], path: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, section
    for field, about in section["properties"].items():
        for name in _refs(about):
            yield from _sections(known[name], known, f"{path}.{field}")


def _refs(about: dict[str, Any]) -> list[str]:
    return re.findall(r"#/\$defs/(\w+)", json.dumps(about))


def _kind(about: dict[str, Any]) -> str:
    """``integer ≥ 1``, ``a | b``, ``list of text``: a type as a reader writes it."""
    if "anyOf" in about:
        return " | ".join(_kind(one) for one in about["anyOf"])
    if "enum" in about or "const" in about:
        return " | ".join(map(str, about.get("enum", [about.get("const")])))
    if about.get("type") == "array":
        return f"list of {_kind(about.get('items') or about['prefixItems'][0])}"
    words = {"string": "path" if about.get("format") == "path" else "text", "boolean": "true | false"}
    bounds = [f"{sign} {about[name]:g}" for name, sign in BOUNDS.items() if name in about]
    return " ".join([words.get(about.get("type", ""), about.get("type", "any")), *bounds])


def _anchor(path: str) -> str:
    return path.lstrip(".").replace(".", "-") or "top"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""  # Python-Markdown keeps bars within code in their cell


def _text(text: str) -> str:
    """A cell of a Markdown table: one line, bars and tags escaped."""
    return " ".join(text.split()).replace("|", "\\|").replace("``", "`").replace("<", "&lt;")
