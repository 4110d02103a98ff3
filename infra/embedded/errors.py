"""What stops a start: facts for the person in front of the terminal."""


class CannotStart(Exception):  # noqa: N818  a fact, said as one
    """Its text is one line that names what is wrong and what to do about it; there is nothing more to print."""


class AlreadyHeld(CannotStart):
    """Another process works on the same state folder."""

    def __init__(self, path: str, pid: int) -> None:
        super().__init__(f"{path} is in use by process {pid}: `kisum status` shows it, `kisum down` stops it")
        self.pid = pid
