"""Every error that a user can cause or meet, each with the exit status that the command line ends with.

GominError
├── UsageError               2  options or arguments that make no sense
│   └── UnknownModelError    2  no such model on the server or in the repository; lists those there are
├── FileError                1  a file that cannot be read or written
├── ServerError              3  the server cannot be reached or is not ready
│   ├── ModelNotReadyError   3  the server is there and knows the model, but could not load it, or has not yet
│   └── AccessError          3  the server is there and refuses this client
├── InferenceError           1  the server was reached, but answered a request with an error
│   └── DeadlineError        1  the server did not answer in time
├── ContractError            5  model and input disagree, or the model is not a GOMIN model
│   └── SuspiciousMelError   5  a mel that the model takes, but that is none of GOMIN's
└── (gomin_export.errors)    4 parity failed, 6 unusable checkpoint, 1 model repository

Libraries raise; only the command line exits. The message is complete in itself: what is wrong, with what, what to do.
"""


class GominError(Exception):
    """Base of all errors that are not a defect of this program.

    Attributes:
        exit_code: the status that a command line ends with.
    """

    exit_code = 1


class UsageError(GominError):
    """Options or arguments that cannot be acted on."""

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
    """A model that a server knows and does not serve; the message tells why, as far as the server does."""


class AccessError(ServerError):
    """A server that refuses this client: credentials are missing or wrong. Trying again would not help."""


class InferenceError(GominError):
    """A request that the server answered with an error; the message is the server's own."""


class DeadlineError(InferenceError):
    """A request that took longer than its deadline."""


class ContractError(GominError):
    """A model and an input, or a model and this client, that do not fit together."""

    exit_code = 5


class SuspiciousMelError(ContractError):
    """Values that fit into the model, and would make noise of it: the message tells what they look like."""


class Interrupted(BaseException):
    """A signal asked the program to end. Not a `GominError`: nothing but `console.run` is to catch it.

    Attributes:
        number: of the signal.
        so_far: what to tell of the work so far; None where the program knows it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.so_far: str | None = None
