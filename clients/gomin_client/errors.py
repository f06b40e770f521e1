"""All errors that a user can cause or meet, with the exit status of the command line.

GominError
├── UsageError               2  options or arguments that are wrong
│   └── UnknownModelError    2  no such model on the server or in the repository; lists the available ones
├── FileError                1  a file that cannot be read or written
├── ServerError              3  the server cannot be reached or is not ready
│   ├── ModelNotReadyError   3  the server knows the model, but has not loaded it, or could not
│   ├── IncompleteAnswerError  3  the connection was lost in the middle of an answer
│   └── AccessError          3  the server refuses this client
├── InferenceError           1  the server was reached, but answered a request with an error
│   └── DeadlineError        1  the server did not answer in time
├── ContractError            5  model and input disagree, or the model is not a GOMIN model
│   └── SuspiciousMelError   5  a mel whose values are not in GOMIN's scale
└── (gomin_export.errors)    4 parity failed, 6 unusable checkpoint, 1 model repository

Libraries raise; only the command line exits. A message is complete: it says what is wrong, with what, and what to do.
"""


class GominError(Exception):
    """Base class of all errors that are not a defect of this program.

    Attributes:
        exit_code: exit status of the command line.
    """

    exit_code = 1


class UsageError(GominError):
    """Options or arguments that are wrong."""

    exit_code = 2


class UnknownModelError(UsageError):
    """A model name that the server or repository does not have."""


class FileError(GominError):
    """A file that cannot be read or written; the message begins with its name."""


class ServerError(GominError):
    """A server that cannot be reached or is not ready; the message names its URL.

    Attributes:
        problem: the message without advice.
    """

    exit_code = 3

    def __init__(self, problem: str, advice: str = "") -> None:
        super().__init__(f"{problem}: {advice}" if advice else problem)
        self.problem = problem


class ModelNotReadyError(ServerError):
    """A model that a server knows but does not serve; the message contains the server's reason, if it gives one."""


class IncompleteAnswerError(ServerError):
    """A connection that was lost in the middle of an answer."""


class AccessError(ServerError):
    """A server that refuses this client because credentials are missing or wrong. Not retried."""


class InferenceError(GominError):
    """A request that the server answered with an error; the message is the server's own."""


class DeadlineError(InferenceError):
    """A request that took longer than its deadline."""


class ContractError(GominError):
    """A model and an input, or a model and this client, that do not match."""

    exit_code = 5


class SuspiciousMelError(ContractError):
    """A mel of the right shape whose values would give noise; the message says what they look like."""


class SuspiciousAudioError(ContractError):
    """Audio far beyond full scale; the message says what its values look like."""


class Interrupted(BaseException):
    """A signal asked the program to end. Not a `GominError`: only `console.run` catches it.

    Attributes:
        number: number of the signal.
        so_far: a sentence about the work done so far; None to let the program produce it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.so_far: str | None = None
