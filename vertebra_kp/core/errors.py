"""What a user can mend: commands print these in one line, without a traceback."""

from vertebra_kp.core.text import printable


class UserError(ValueError):
    """Names the field or file, what came, and the remedy."""

    def __str__(self) -> str:
        return printable(super().__str__())
