"""Every error a user can meet, as one tree.

    GalsearchError
    ├── FormatError            the file or folder is not an atlas, or it is damaged
    │   ├── VersionTooOldError     written by a format this galsearch no longer reads
    │   └── VersionTooNewError     written by a newer galsearch
    ├── ModelMismatchError     vectors or queries of another model, or a model that fails its self-test
    ├── SchemaError            an input row, column, picture or table that cannot be taken
    ├── QueryError             a question that cannot be asked: bad `where`, unknown id, empty text
    │   ├── UnknownIdError         no object by that id; a KeyError too, as `atlas[id]` is looked up like a dict
    │   ├── EngineError            a statement at which the SQL engine fails by an error of its own
    │   └── LimitError             a visitor's question that takes more than a visitor may take
    ├── BusyError              too many ask at once, or one asks too often; nothing is wrong with the question
    └── RemoteError            a service outside did not answer

Each message states the value met, the rule it breaks and the remedy.
"""


class GalsearchError(Exception):
    """Any error that galsearch raises on purpose; catch this one to catch them all."""


class FormatError(GalsearchError):
    """The path is not an atlas, or a part of it is missing or damaged."""


class VersionTooOldError(FormatError):
    """The atlas has an older major format version than this galsearch reads."""


class VersionTooNewError(FormatError):
    """The atlas has a newer major format version than this galsearch knows."""


class ModelMismatchError(GalsearchError):
    """Two embeddings that must not be compared, or a model file that is not what its card says."""


class SchemaError(GalsearchError):
    """An input file, row or column breaks a rule of the schema."""


class QueryError(GalsearchError):
    """A question that has no answer as asked."""


class UnknownIdError(QueryError, KeyError):
    """There is no object by that id."""

    __str__ = Exception.__str__  # KeyError puts quotes around its message


class EngineError(QueryError):
    """A statement at which the SQL engine fails by an error of its own; neither the file nor the reader is to blame."""


class LimitError(QueryError):
    """A question of a visitor that took more time, memory or room than it may, and was stopped."""


class BusyError(GalsearchError):
    """Too many ask at once, or one asks too often; the same question may be asked again later."""


class RemoteError(GalsearchError):
    """A remote service failed; nothing may be concluded from its silence."""
