"""Errors that a user can mend: each message names the cause and the mend, and is all that is shown.

Whatever else is raised is a fault of this package's and ends with its traceback.
"""


class KnownError(Exception):
    """What a command ends with in one line, exit status 1."""


class ConfigError(KnownError, ValueError):
    """A bad setting; the message names the setting, the cause and the mend."""


class PlacementError(KnownError, ValueError):
    """The soft prompt cannot be placed in this prompt; the message names the cause and the mend."""


class EmbeddingTableError(KnownError, ValueError):
    """The pretrained table is gone or another one; the message names the cause and the mend."""


class RunFolderError(KnownError, RuntimeError):
    """The run folder cannot be used; the message names the file, the cause and the mend."""


class GenerationError(KnownError, RuntimeError):
    """An engine died; the message says what to do."""


class PolicyMismatchError(KnownError, RuntimeError):
    """Rollout and actor disagree on the log-probs of the sampled tokens."""


class RunBrokenError(KnownError, RuntimeError):
    """The run cannot go on; the message says what broke, in which phase, and the mend."""
