"""Configs on disk: strict YAML, ``base:`` composition, ``a.b=value`` overrides, and every problem told at once.

Scalars follow the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema), as people
expect them: ``1e-4`` is a number, ``on`` is text. Values are then checked without conversion.
"""

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from vertebra_kp.config.schema import Config
from vertebra_kp.config.spine import LevelConfig, SpineConfig, sources_kind
from vertebra_kp.core.errors import UserError
from vertebra_kp.core.files import write_text

SHIPPED = Path(__file__).parent / "files"

Keys = tuple[str | int, ...]  # of a value in a config: ("train", "phases", 0, "lr")
PlaceOf = Callable[[int], str]  # how errors call a line: "configs/x.yaml:12", or the override it stands in

AnyConfig = TypeVar("AnyConfig", Config, SpineConfig, LevelConfig)

BASE = "base"  # the one key of a file that is not a field of Config
MOST_BASES = 50  # files, each on top of the next
MOST_BYTES = 2**20  # of a file
MOST_VALUES = 100_000  # of a text, written out: anchors can stand for billions
DEEPEST = 30  # levels of lists and mappings
LARGEST_INTEGER = 2**32 - 1  # of a seed; larger numbers of anything else do not fit into memory
LONGEST_VALUE = 60  # characters of a value that an error repeats
CONVERTED: dict[str, type] = {"bool_type": bool, "int_type": int, "int_from_float": int, "float_type": float}

# What was wanted, by pydantic's kind of error (https://docs.pydantic.dev/latest/errors/validation_errors/).
WANTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "model_type": "a mapping of keys to values",
    "dict_type": "a mapping of keys to values",
    "literal_error": "{expected}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "a length of at least {min_length}",
    "too_long": "a length of at most {max_length}",
    "string_pattern_mismatch": "text that matches {pattern}",
}


class ConfigError(UserError):
    """A config that cannot be used; its text has one line per problem: place, path, value, remedy."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass
class _Draft:
    """Values of a config before they are checked, and where each was written (``file:line``, or the override)."""

    values: dict[str, Any]
    places: dict[Keys, str]
    problems: list[str] = field(default_factory=list)

    def place(self, keys: Keys) -> str:
        """Where the value was written, or the closest thing around it."""
        while keys not in self.places:
            keys = keys[:-1]
        return self.places[keys]


def find_config(name_or_path: str | Path, folder: Path = Path()) -> Path:
    """A config's file: a path relative to ``folder`` (unchecked), or a name in the package; else ConfigError."""
    path = folder / name_or_path
    if path.exists() or path.suffix or len(Path(name_or_path).parts) > 1:
        return path
    named = SHIPPED / f"{name_or_path}.yaml"
    if named.is_file():
        return named
    names = sorted(file.stem for file in SHIPPED.glob("*.yaml"))
    near = _did_you_mean(str(name_or_path), names)
    raise ConfigError([f"{path}: no such file, and no config of that name ({', '.join(names)}){near}"])


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The checked config of a YAML file, over what its ``base:`` names and under ``a.b=value`` overrides.

    ``base:`` is relative to the file that says it, or a name as for ``find_config``. Mappings merge key by key,
    lists replace; an override may name a list item (``train.phases.0.epochs=3``) and its value is YAML. Paths
    inside a config (``data.root``) stay as written: they are relative to the working directory.
    Raises ConfigError with all problems.
    """
    return _checked(_read_chain(Path(path)), overrides, Config)


def load_job(path: Path, overrides: Sequence[str] = ()) -> Config | SpineConfig | LevelConfig:
    """As ``load_config``; a file that names ``sources`` is a spine network's or a level network's."""
    draft = _read_chain(Path(path))
    kind = sources_kind(draft.values)
    if kind is None:
        return _checked(draft, overrides, Config)
    return (
        _checked(draft, overrides, LevelConfig) if kind is LevelConfig else _checked(draft, overrides, SpineConfig)
    )


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """A config under ``a.b=value`` overrides; raises ConfigError with all problems."""
    return _checked(_Draft(config.model_dump(mode="json"), {(): f"config {config.name}"}), overrides, Config)


def _checked(draft: _Draft, overrides: Sequence[str], kind: type[AnyConfig]) -> AnyConfig:
    for override in overrides:
        try:
            _apply_override(draft, override)
        except ConfigError as error:
            draft.problems += error.problems
    try:
        # As JSON, strict mode still turns lists into tuples and text into paths, and nothing else.
        config = kind.model_validate_json(json.dumps(draft.values), strict=True)
    except ValidationError as error:
        raise ConfigError(draft.problems + _explain(error, draft)) from None
    if draft.problems:
        raise ConfigError(draft.problems)
    return config


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in any YAML file, by the same strict rules; raises ConfigError with all problems."""
    draft = _read_file(Path(path), "")
    if draft.problems:
        raise ConfigError(draft.problems)
    return draft.values


def save_config(config: Config | SpineConfig | LevelConfig, path: Path) -> None:
    """Write every field of a config, defaults included, as YAML that ``load_config`` reads back equal."""
    text = yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    write_text(text, Path(path))


def config_json_schema() -> dict[str, Any]:
    """JSON schema of a config file, for editors: as ``Config``, but ``base:`` may bring what is missing."""
    schema = Config.model_json_schema()
    base = {"type": "string", "description": "File that this one builds on, relative to this one."}
    schema["properties"] = {BASE: base} | schema["properties"]
    for section in (schema, schema["$defs"]["TrainConfig"]):
        section.pop("required")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema


# --- YAML -----------------------------------------------------------------------------------------------


_PREFIX = "tag:yaml.org,2002:"
_SCALARS = (  # tag, pattern, first characters
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)",
        list("-+.0123456789"),
    ),
)


class _Loader(yaml.SafeLoader):
    """Knows the scalars above, lists and mappings, and nothing else."""

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        digits = node.value.replace("_", "")
        if len(digits) > len(str(-LARGEST_INTEGER)) or abs(int(digits)) > LARGEST_INTEGER:
            raise yaml.constructor.ConstructorError(
                problem=f"{_shortened(node.value)} is larger than {LARGEST_INTEGER}", problem_mark=node.start_mark
            )
        return int(digits)

    def construct_text(self, node: yaml.ScalarNode) -> str:
        try:
            node.value.encode()
        except UnicodeEncodeError as error:  # of an escape: "\\ud800"
            raise yaml.constructor.ConstructorError(
                problem=f"{error.reason}: half a character", problem_mark=node.start_mark
            ) from None
        return node.value

    def construct_number(self, node: yaml.ScalarNode) -> float:
        number = float(node.value)
        if not math.isfinite(number):
            raise yaml.constructor.ConstructorError(
                problem=f"{_shortened(node.value)} is not a finite number", problem_mark=node.start_mark
            )
        return number


class _Dumper(yaml.SafeDumper):
    """Also quotes text that only ``_Loader`` takes for a number; lists of scalars take one line."""

    def represent_items(self, items: list[Any]) -> yaml.SequenceNode:
        flat = not any(isinstance(item, dict | list) for item in items)
        return self.represent_sequence(_PREFIX + "seq", items, flow_style=flat)


_Loader.yaml_implicit_resolvers = {}
_Loader.yaml_constructors = {
    tag: yaml.SafeLoader.yaml_constructors[tag]
    for tag in (None, *(_PREFIX + kind for kind in ("null", "bool", "seq", "map")))
}
_Loader.add_constructor(_PREFIX + "str", _Loader.construct_text)
_Loader.add_constructor(_PREFIX + "int", _Loader.construct_integer)
_Loader.add_constructor(_PREFIX + "float", _Loader.construct_number)
_Dumper.add_representer(list, _Dumper.represent_items)
for _kind, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_PREFIX + _kind, re.compile(rf"(?:{_pattern})\Z"), _first)


def _parse(text: str, place_of: PlaceOf) -> tuple[Any, yaml.Node | None]:
    """Value and syntax tree of a YAML text; ConfigError where the syntax is broken or the text is boundless."""
    try:
        _check_depth(text, place_of)
        loader = _Loader(text)
        node = loader.get_single_node()
        # deep: an anchor that contains itself is an error
        value = None if node is None else loader.construct_object(node, deep=True)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError([f"{place_of(line)}: not readable as YAML: {error.reason}"]) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError([f"{place_of(line)}: not readable as YAML: {error.problem}"]) from None
    if (values := _number_of_values(value, {})) > MOST_VALUES:
        raise ConfigError([f"{place_of(1)}: stands for {values} values, at most {MOST_VALUES} are read"])
    return json.loads(json.dumps(value)), node  # the copy unshares what anchors share


def _check_depth(text: str, place_of: PlaceOf) -> None:
    """ConfigError where lists and mappings are nested deeper than a config is: reading them would never end."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise ConfigError([f"{place_of(line)}: nested more than {DEEPEST} levels deep"])


def _number_of_values(value: Any, known: dict[int, int]) -> int:
    """Of lists and mappings with all that is in them, each as often as an anchor repeats it."""
    if not isinstance(value, list | dict):
        return 1
    if id(value) not in known:
        items = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_number_of_values(item, known) for item in items)
    return known[id(value)]


def _scan(node: yaml.Node | None, keys: Keys, place_of: PlaceOf, draft: _Draft) -> None:
    """Note the place of every value below ``node``, and the keys that are written twice or are not text."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            draft.places[(*keys, index)] = place_of(item.start_mark.line + 1)
            _scan(item, (*keys, index), place_of, draft)
    elif isinstance(node, yaml.MappingNode):
        first_lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            child = (*keys, key.value)
            if key.tag != _PREFIX + "str":
                draft.problems.append(f"{place_of(line)}: {_dotted(child)}: a key must be text; quote it")
            elif key.value in first_lines:
                draft.problems.append(
                    f"{place_of(line)}: {_dotted(child)} is written twice, in lines "
                    f"{first_lines[key.value]} and {line}; keep one"
                )
            first_lines.setdefault(key.value, line)
            draft.places[child] = place_of(line)
            _scan(value, child, place_of, draft)


# --- composition ----------------------------------------------------------------------------------------


def _read_chain(path: Path, readers: tuple[Path, ...] = (), asked_at: str = "") -> _Draft:
    """The file on top of what its ``base:`` names, and so on; ``readers`` are the files that led here."""
    if path.resolve() in [reader.resolve() for reader in readers]:
        circle = " -> ".join(str(reader) for reader in (*readers, path))
        raise ConfigError([f"{asked_at}base goes round in a circle: {circle}"])
    if len(readers) > MOST_BASES:
        raise ConfigError([f"{asked_at}more than {MOST_BASES} files build on each other; write them as fewer"])
    draft = _read_file(path, asked_at)
    if BASE not in draft.values:
        return draft
    base = draft.values.pop(BASE)
    place = draft.place((BASE,))
    if not isinstance(base, str) or not base:
        raise ConfigError([*draft.problems, f"{place}: base is {_shown(base)}: wanted the path of one file"])
    try:
        base_path = find_config(base, path.parent)
    except ConfigError as error:
        raise ConfigError([f"{place}: {problem}" for problem in error.problems]) from None
    under = _read_chain(base_path, (*readers, path), f"{place}: ")
    return _Draft(_merge(under.values, draft.values), under.places | draft.places, under.problems + draft.problems)


def _read_file(path: Path, asked_at: str) -> _Draft:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode("utf-8")
    except FileNotFoundError:
        near = _did_you_mean(path.name, [file.name for file in path.parent.glob("*.y*ml")])
        raise ConfigError([f"{asked_at}{path}: no such file{near}"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{asked_at}{path}: cannot be read as text: {error}"]) from None

    if len(content) > MOST_BYTES:
        raise ConfigError([f"{asked_at}{path}: is larger than {MOST_BYTES} bytes: no config is"])

    def place_of(line: int) -> str:
        return f"{path}:{line}"

    values, node = _parse(text, place_of)
    if values is None:
        raise ConfigError([f"{asked_at}{path}: is empty: wanted keys and values, such as `name: first_try`"])
    if not isinstance(values, dict):
        raise ConfigError([f"{asked_at}{path}: is {_shown(values)}: wanted a mapping of keys to values"])
    draft = _Draft(values, {(): str(path)})
    _scan(node, (), place_of, draft)
    return draft


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = under | over
    for key in under.keys() & over.keys():
        if isinstance(under[key], dict) and isinstance(over[key], dict):
            merged[key] = _merge(under[key], over[key])
    return merged


def _apply_override(draft: _Draft, override: str) -> None:
    """Write ``a.b=value`` into the draft; raises ConfigError for a path that cannot be followed."""
    place = f"override {_shortened(override)}"
    dotted, equals, text = override.partition("=")
    names = dotted.strip().split(".")
    if not equals or not all(names):
        raise ConfigError([f"{place}: wanted KEY=VALUE, such as train.seed=1"])
    if len(names) > DEEPEST:
        raise ConfigError([f"{place}: no setting lies more than {DEEPEST} levels deep"])
    value, node = _parse(text, lambda _: place)
    container: Any = draft.values
    keys: Keys = ()
    for name in names:
        if keys:  # step into what the name before has named
            if isinstance(container, dict) and keys[-1] not in container:
                container[keys[-1]] = _unwritten(keys)
                draft.places[keys] = place
            container = container[keys[-1]]
        if isinstance(container, list):
            if not re.fullmatch(r"\d{1,9}", name) or int(name) >= len(container):
                length = f"its length is {len(container)}, the first is 0; or set the whole list"
                raise ConfigError([f"{place}: {_dotted(keys)} has no item {_shortened(name)}: {length}"])
            draft.places[keys] = place
            keys = (*keys, int(name))
        elif isinstance(container, dict):
            keys = (*keys, name)
        else:
            raise ConfigError([f"{place}: {_dotted(keys)} is {_shown(container)}: it has no {name}"])
    earlier = container.get(keys[-1]) if isinstance(container, dict) else None
    if isinstance(earlier, dict) and isinstance(value, dict):
        value = _merge(earlier, value)  # as a file on top would
    container[keys[-1]] = value
    draft.places[keys] = place
    _scan(node, keys, lambda _: place, draft)


def _unwritten(keys: Keys) -> dict | list:
    """What an override finds where the file says nothing: the default of a list, else an empty section."""
    section = _section_at(keys[:-1])
    known = section.model_fields.get(str(keys[-1])) if section else None
    return list(known.default) if known and isinstance(known.default, list | tuple) else {}


# --- plain words ----------------------------------------------------------------------------------------


def _explain(error: ValidationError, draft: _Draft) -> list[str]:
    """One line per wrong value; the branches of a union (text or path) share theirs."""
    by_keys: dict[Keys, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        by_keys.setdefault(_keys_of(detail, draft.values), []).append(detail)
    return [_explain_value(keys, details, draft) for keys, details in by_keys.items()]


def _keys_of(detail: ErrorDetails, values: Any) -> Keys:
    """Where in the values an error lies: pydantic's location without the names of union branches."""
    keys = detail["loc"]
    if detail["type"] == "missing":
        return keys
    for depth, key in enumerate(keys):
        known = range(len(values)) if isinstance(values, list) else values
        if not isinstance(known, dict | range) or key not in known:
            return keys[:depth]
        values = values[key]
    return keys


def _explain_value(keys: Keys, details: list[ErrorDetails], draft: _Draft) -> str:
    kind, value, name = details[0]["type"], details[0]["input"], _dotted(keys)
    if kind == "missing":
        return f"{draft.place(keys[:-1])}: {name} is missing: add it"
    if kind == "extra_forbidden":
        return f"{draft.place(keys)}: {name} is no known key{_near_key(keys)}"
    if kind == "value_error":
        message = str(details[0]["ctx"]["error"])
        named = tuple(re.split(r"[^\w.]", message, maxsplit=1)[0].split("."))  # it begins with its field
        section = _section_at((*keys, *named[:-1]))
        if section and named[-1] in section.model_fields:
            return f"{draft.place((*keys, *named))}: {'.'.join([*map(str, keys), message])}"
        return f"{draft.place(keys)}: {name}: {message}"
    wanted = " or ".join(
        WANTED.get(detail["type"], "another value ({msg})").format(**detail.get("ctx", {}), msg=detail["msg"])
        for detail in details
    )
    return f"{draft.place(keys)}: {name} is {_shown(value)}: wanted {wanted}{_near_value(details[0])}"


def _near_value(detail: ErrorDetails) -> str:
    """The value that was probably meant, as it should be written."""
    kind, value = detail["type"], detail["input"]
    if kind == "literal_error" and isinstance(value, str):
        return _did_you_mean(value, re.findall(r"'([^']*)'", detail["ctx"]["expected"]))
    if kind == "string_type" and isinstance(value, int | float):
        return "; put it in quotes"
    if kind == "list_type" and isinstance(value, str | int | float):
        return f"; did you mean {json.dumps([value])}?"
    if kind in CONVERTED and (kind == "bool_type" or isinstance(value, str | float)):
        with suppress(ValueError):  # "inf" is converted, and is no number that can be written
            meant: bool | float = TypeAdapter(CONVERTED[kind]).validate_python(value)
            return f"; did you mean {json.dumps(meant, allow_nan=False)}?"
    return ""


def _near_key(keys: Keys) -> str:
    """A known key of the same section that is spelled alike, or one of the same name elsewhere."""
    section = _section_at(keys[:-1])
    if section and (near := _did_you_mean(str(keys[-1]), section.model_fields, within=keys[:-1])):
        return near
    elsewhere = [path for path in _all_keys(Config) if path[-1] == keys[-1]]
    return f"; did you mean {' or '.join(map(_dotted, elsewhere))}?" if elsewhere else ""


def _did_you_mean(word: str, known: Iterable[str], *, within: Keys = ()) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {_dotted((*within, near[0]))}?" if near else ""


def _section_at(keys: Keys) -> type[BaseModel] | None:
    """The model that checks the mapping at ``keys``."""
    section: type[BaseModel] | None = Config
    for key in keys:
        if isinstance(key, int):
            continue  # items of a list: the field before has led to their section
        known = section.model_fields.get(key) if section else None
        section = _section_in(known.annotation) if known else None
    return section


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _section_in(part))), None)


def _all_keys(section: type[BaseModel], prefix: Keys = ()) -> Iterator[Keys]:
    for name, known in section.model_fields.items():
        yield (*prefix, name)
        if inner := _section_in(known.annotation):
            item = (0,) if get_origin(known.annotation) is list else ()
            yield from _all_keys(inner, (*prefix, name, *item))


def _dotted(keys: Keys) -> str:
    return ".".join(map(str, keys)) or "config"


def _shown(value: Any) -> str:
    return _shortened(json.dumps(value, ensure_ascii=False))


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
