"""What the database floor raises: the driver's own exceptions stay below it."""


class DatabaseError(Exception):
    """The database refused a statement."""


class DatabaseUnavailable(DatabaseError):
    """The database cannot be reached, or the connection broke: whether a commit took effect is unknown."""


class DuplicateName(DatabaseError):
    """A row with that unique value exists; the argument is the constraint's name."""


class WriteConflict(DatabaseError):
    """Another transaction came first: the whole transaction can be tried again."""
