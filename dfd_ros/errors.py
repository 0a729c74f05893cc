"""The errors that dfd_ros raises on bad input."""


class InputError(ValueError):
    """Input that cannot be used: a file, parameter, message or argument.

    The message is one sentence naming the thing, what was expected and what came.
    """


class GpuMemoryError(InputError):
    """A GPU without room for what was asked for; something smaller, or an emptier GPU, may do."""
