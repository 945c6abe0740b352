"""What went wrong with a call to S3: whether to try again, and a sentence that says what to do."""

from __future__ import annotations

from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    ConnectTimeoutError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    SSLError,
)

from torpor_snapshotter.store import StoreError

_PASSING_CODES: Final = {
    "ConditionalRequestConflict",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
}
_CREDENTIAL_CODES: Final = {
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_REGION_CODES: Final = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
_FULL_CODES: Final = {"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"}
_PERMISSIONS: Final = (
    "s3:GetObject, s3:PutObject, s3:DeleteObject, s3:ListBucket, s3:AbortMultipartUpload "
    "and s3:ListBucketMultipartUploads"
)
_HTTP_INSUFFICIENT_STORAGE: Final = 507


_BROKEN: Final = (ConnectionError, HTTPClientError, IncompleteReadError)


class S3Failure(StoreError):
    """A call to S3 failed; the message says what to do, and holds no secret."""

    def __init__(self, message: str, *, status: int | None, code: str, passing: bool) -> None:
        super().__init__(message)
        self.status = status
        """Of the HTTP answer, None if there was none."""
        self.code = code
        """S3's word for it; HTTP's number where there is no body, as in the answer to a HEAD."""
        self.passing = passing
        """Whether trying again may help."""

    @property
    def decided(self) -> bool:
        """Whether the server has surely not done what it was asked for."""
        conditional = self.status in {409, 412} or self.code == "NoSuchUpload"  # a first try may have done it
        return self.status is not None and 400 <= self.status < 500 and not conditional and not self.passing

    @property
    def is_absence(self) -> bool:
        """Whether the object is not there."""
        return self.code in {"NoSuchKey", "404"}


def failure_of(error: Exception, place: str, endpoint: str) -> S3Failure:
    """The failure behind an exception of boto3's; `place` and `endpoint` are names for the sentence."""
    if isinstance(error, ClientError):
        return _answered(error, place, endpoint)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        why = (
            f"There are no credentials for {place}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or a profile or role as for the AWS command line."
        )
        return _unanswered(error, why, passing=False)
    if isinstance(error, SSLError):
        why = f"{endpoint} has no certificate that this host trusts: name its authority's file in AWS_CA_BUNDLE."
        return _unanswered(error, why, passing=False)
    if isinstance(error, ConnectTimeoutError | ReadTimeoutError):
        why = f"{endpoint} does not answer in time for {place}: see that it is up, and the network to it."
        return _unanswered(error, why, passing=True)
    if isinstance(error, BotoCoreError) and not isinstance(error, _BROKEN):
        return _unanswered(error, f"{place} cannot be used: {error}", passing=False)
    why = (
        f"The connection to {endpoint} fails for {place}: see that it is up, that AWS_ENDPOINT_URL_S3 is right if it "
        f"is set, and the network ({type(error).__name__})."
    )
    return _unanswered(error, why, passing=True)


def _unanswered(error: Exception, message: str, *, passing: bool) -> S3Failure:
    return S3Failure(message, status=None, code=type(error).__name__, passing=passing)


def _answered(error: ClientError, place: str, endpoint: str) -> S3Failure:
    code = error.response["Error"].get("Code", "")
    status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    passing = code in _PASSING_CODES or status == 429 or (status >= 500 and status not in {501, 507})
    message = _sentence(code, status, error.operation_name, place, endpoint)
    return S3Failure(message, status=status, code=code, passing=passing)


def _sentence(code: str, status: int, operation: str, place: str, endpoint: str) -> str:
    if code in _FULL_CODES or status == _HTTP_INSUFFICIENT_STORAGE:
        return f"{place} is full: make room at {endpoint}, or raise its quota."
    if code == "NoSuchBucket" or (code == "404" and operation == "HeadBucket"):
        return f"There is no bucket for {place} at {endpoint}: make it, or name another with --store-url."
    if code in _CREDENTIAL_CODES:
        return f"{endpoint} does not accept the credentials ({code}): see AWS_ACCESS_KEY_ID and its like, or the role."
    if code in _REGION_CODES or status == 301:
        return f"The bucket of {place} is in another region ({code}): set AWS_REGION to that one."
    if code == "RequestTimeTooSkewed":
        return f"The clocks of this host and of {endpoint} differ: set this host's."
    if status in {409, 412}:
        return f"Somebody else writes to {place} or deletes from it at the same time ({code}); try again."
    if status == 403:
        return f"The credentials may not do {operation} in {place}: allow {_PERMISSIONS}."
    if code == "NotImplemented" or status == 501:
        return (
            f"{endpoint} does not know {operation} with a condition, which Torpor needs; use a newer or other server."
        )
    return f"{endpoint} answers {operation} in {place} with {status} {code}; see its log if this goes on."
