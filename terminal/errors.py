"""Why the client cannot go on, in words for the person at the terminal."""


class CannotChat(Exception):
    """The service cannot be used as it was asked to; the message says what to do."""


class NotRunning(CannotChat):
    """Nobody answers at the address of the service."""

    def __init__(self, address: str) -> None:
        super().__init__(f"Colloquy does not answer at {address}: start it with `make run`, or name it with --url.")


class Refused(CannotChat):
    """The service answered, and will not do this."""


class UnknownCaller(CannotChat):
    """The service has accounts, and does not know who asks."""

    def __init__(self, address: str) -> None:
        super().__init__(
            f"The service at {address} asks who you are: put an API key with the scopes read, write and chat into "
            "COLLOQUY_API_KEY (docs/accounts.md says how to get one)."
        )


class Lost(CannotChat):
    """The service went away and did not come back."""
