"""What can go wrong, told apart by who can mend it.

`UserError` is for whoever types the command: one or two lines that say what, where, and what to do (exit code 2).
`Interrupted` ends work that was stopped on purpose with its progress saved (exit code 130).
`Missed` says that a bound the person set was missed (exit code 3).
Every other exception is a defect of ours (exit code 1).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake the person can mend.

    `what` happened, `where` (a file, a line, a key), and the `fix`: what to type or change.
    """

    def __init__(self, what: str, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(self.message())

    def message(self) -> str:
        """The one or two lines that are shown."""
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  {self.fix}" if self.fix else head


class UserErrors(UserError):
    """Several mistakes found in one look, reported together."""

    def __init__(self, problems: list[UserError]) -> None:
        self.problems = problems
        super().__init__("\n".join(p.message() for p in problems))


class Interrupted(Exception):
    """Ctrl-C or SIGTERM, with the progress saved. `how` says in a few words how to go on."""

    def __init__(self, how: str = "run the same command again to go on") -> None:
        self.how = how
        super().__init__(how)


class Missed(Exception):
    """The work is done, and its result is on the wrong side of a bound that the person set: CI should stop here."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        super().__init__("; ".join(lines))


def nearest(word: str, choices: Iterable[str]) -> str:
    """A hint that names the closest of `choices` to `word`, or an empty string where none is close."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.55)
    return f" (did you mean {close[0]!r}?)" if close else ""
