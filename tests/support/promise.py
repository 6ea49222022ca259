"""What a workload was told, and what it acknowledged, up to a crash point."""

from typing import final

from support.trace import Note


@final
class Promise:
    """What the notes up to a crash point bind the database to."""

    def __init__(self) -> None:
        self.created = False
        self.begun = 0
        self.acknowledged = 0
        """Survives the death of the process."""
        self.durable = 0
        """Survives power loss."""
        self.lsn = 0
        """The last that was given: never again to anything else."""

    def read(self, note: Note) -> None:
        word, number, lsn = (note.data.decode() + " 0 0").split()[:3]
        self.lsn = max(self.lsn, int(lsn))
        if word == "created":
            self.created = True
        elif word == "begin":
            self.begun = int(number)
        else:
            self.acknowledged = max(self.acknowledged, int(number))
            if word == "durable":
                self.durable = max(self.durable, int(number))
