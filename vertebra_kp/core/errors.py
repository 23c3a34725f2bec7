"""What a user can mend: commands print these in one line, without a traceback."""


class UserError(ValueError):
    """Names the field or file, what came, and the remedy."""
