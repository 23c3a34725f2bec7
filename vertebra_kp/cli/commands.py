"""The commands, from ``commands.toml``: what each is for, and which arguments it takes."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Command:
    """See the head of ``commands.toml``."""

    name: str
    help: str
    takes: str
    about: str = ""
    needs: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, int] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """The file of this room whose ``run`` does the work."""
        return self.name.replace("-", "_")


GROUPS = {
    group: [Command(name, **content) for name, content in commands.items()]
    for group, commands in tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")).items()
}
COMMANDS = {command.name: command for group in GROUPS.values() for command in group}
