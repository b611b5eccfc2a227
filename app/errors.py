"""Every error that a caller can meet.

    GanvilError                     500  internal
    ├── NotFound                    404  not_found
    ├── Gone                        410  gone
    ├── Conflict                    409  conflict
    │   ├── InvalidState            409  invalid_state
    │   └── InUse                   409  in_use
    ├── Invalid                     422  invalid
    │   └── IdempotencyMismatch     422  idempotency_mismatch
    ├── NotAcceptable               406  not_acceptable
    ├── RangeNotSatisfiable         416  range_not_satisfiable
    ├── TooLarge                    413  too_large
    ├── Unauthorized                401  unauthorized
    ├── Forbidden                   403  forbidden
    │   ├── WrongSignature          403  wrong_signature
    │   └── AddressExpired          403  address_expired
    ├── Busy                        429  busy
    ├── ExportFailed                500  export_failed
    ├── NotInstalled                501  not_installed
    ├── Unavailable                 503  unavailable
    ├── DeadlineExceeded            504  deadline_exceeded
    ├── StorageFull                 507  storage_full
    └── LeaseLost                   409  lease_lost     (between workers and the core; never seen over HTTP)

Domain code raises these; `app.http.problems` turns them into `application/problem+json` (RFC 9457) in one place. A message says what
was wrong and what to do about it.
"""

from typing import ClassVar, NamedTuple


class FieldError(NamedTuple):
    """One offending part of a request: a JSON pointer (RFC 6901) such as `#/config/batch_size`, and what is wrong with it."""

    pointer: str
    detail: str


class GanvilError(Exception):
    """Base of the tree. `code` is stable and meant for programs, `detail` for people."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self, detail: str, *, errors: list[FieldError] | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors or []
        self.headers = headers or {}


class NotFound(GanvilError):
    status, code, title = 404, "not_found", "Not found"


class Gone(GanvilError):
    status, code, title = 410, "gone", "Gone"


class Conflict(GanvilError):
    status, code, title = 409, "conflict", "Conflict"


class InvalidState(Conflict):
    """The verb is not allowed in the present state, which `state` names."""

    code, title = "invalid_state", "Not possible in this state"

    def __init__(self, detail: str, state: str) -> None:
        super().__init__(detail)
        self.state = state


class InUse(Conflict):
    code, title = "in_use", "Still in use"


class Invalid(GanvilError):
    status, code, title = 422, "invalid", "Invalid request"


class IdempotencyMismatch(Invalid):
    code, title = "idempotency_mismatch", "Idempotency-Key was used for another request"


class NotAcceptable(GanvilError):
    status, code, title = 406, "not_acceptable", "Not acceptable"


class RangeNotSatisfiable(GanvilError):
    status, code, title = 416, "range_not_satisfiable", "Range not satisfiable"


class TooLarge(GanvilError):
    status, code, title = 413, "too_large", "Too large"


class Unauthorized(GanvilError):
    status, code, title = 401, "unauthorized", "Unauthorized"


class Forbidden(GanvilError):
    status, code, title = 403, "forbidden", "Forbidden"


class WrongSignature(Forbidden):
    code, title = "wrong_signature", "The signature is wrong"


class AddressExpired(Forbidden):
    code, title = "address_expired", "The address has expired"


class Busy(GanvilError):
    status, code, title = 429, "busy", "Busy"


class ExportFailed(GanvilError):
    status, code, title = 500, "export_failed", "The export failed"


class NotInstalled(GanvilError):
    status, code, title = 501, "not_installed", "Not installed"


class Unavailable(GanvilError):
    status, code, title = 503, "unavailable", "Unavailable"


class TooHeavy(Unavailable):
    """Something that this service is too small for: asking again does not help."""

    code, title = "too_heavy", "Too heavy for this service"


class DeadlineExceeded(GanvilError):
    status, code, title = 504, "deadline_exceeded", "Not in time"


class StorageFull(GanvilError):
    status, code, title = 507, "storage_full", "Storage is full"


class LeaseLost(Conflict):
    """A newer run has claimed the row: whoever gets this must stop and write nothing more."""

    code, title = "lease_lost", "The lease was lost"
