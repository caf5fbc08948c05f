"""The first page of help, drawn without Typer's own: that one imports a Markdown parser, which alone takes longer than
all the rest (0.08 of 0.19 s measured), and `llmctl --help` is to answer at once.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

from typer.core import TyperGroup


class FirstPage(TyperGroup):
    """The command group whose `--help` shows each panel's commands in the order they were added."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the page on stdout."""
        from rich.console import Console, Group
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            panels.setdefault(command.rich_help_panel, []).append((name, _first_sentence(command.help or "")))
        panels["Options"] = [
            ("-h, --help", "This page, or a command's: llmctl COMMAND --help"),
            ("--version", "Print the version"),
            ("--install-completion", "Teach your shell to complete commands and names"),
        ]
        console = Console(file=sys.stdout, highlight=False)
        parts: list[Any] = [
            Text.from_markup("\n [bold]llmctl COMMAND ... [-w DIR] [--json] [-q][/bold]\n".replace("[-", r"\[-")),
            Text(" " + (self.help or "").replace("\n\n", "\n ") + "\n"),
        ]
        for title, rows in panels.items():
            table = Table(box=None, show_header=False, padding=(0, 1), expand=True)
            table.add_column(style="bold cyan", no_wrap=True, min_width=10)
            table.add_column(ratio=1)
            for name, text in rows:
                table.add_row(name, Text.from_markup(text))
            parts.append(Panel(table, title=title, title_align="left", border_style="dim"))
        console.print(Group(*parts))


def _first_sentence(text: str) -> str:
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())
