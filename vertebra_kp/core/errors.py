"""What a user can mend: scripts print these in one line, without a traceback."""


class UserError(ValueError):
    """Names the field or file, what came, and the remedy."""
