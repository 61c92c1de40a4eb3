"""Every failure the core can name.

::

    ProviderError                     500 server_error
      InvalidRequest                  400 invalid_request_error
        UnsupportedParameter          400 code unsupported_parameter
        ContextLengthExceeded         400 code context_length_exceeded
        ModelNotFound                 404 code model_not_found
        NotFound                      404 code not_found
          NoEndpoints                 404 code no_endpoints
        MethodNotAllowed              405 code method_not_allowed
        RequestTimeout                408 code request_timeout
        Conflict                      409 code idempotency_conflict
        RequestTooLarge               413 code request_too_large
        UnsupportedMediaType          415 code unsupported_media_type
      AuthenticationFailed            401 code invalid_api_key
      InsufficientCredits             402 (OpenAI: 429) code insufficient_credits
      PermissionDenied                403 permission_error
      RateLimited                     429 rate_limit_error, Retry-After
        Overloaded                    429 code overloaded
      Unavailable                     503 this replica should get no traffic, Retry-After
      DeadlineExceeded                504 code deadline_exceeded
      BackendError                    502 code backend_error
        StepFailed                    this batch only, the engine lives
        EngineDead                    503 /readyz turns 503, the process ends
      PluginError                     start-up only
      ConfigurationError              start-up only
        SecretNotFound                a secret that is not there, asked how often it may be

A class says its HTTP status, `type` and `code`; an instance adds `param` (the request's field).
A message that reaches a client is written here or where it is raised, lower case, and names the
value and the limit; it never contains the text of another exception. Only the dialects turn these
into bytes.
"""

from typing import ClassVar


class ProviderError(Exception):
    """Base of every error with a defined answer.

    Args:
        message: For the client; names the field, the value and the limit.
        param: The request's field at fault, as the client spelled it.
        code: Overrides the class's code.
        retry_after_s: Seconds after which trying again makes sense.

    Attributes:
        models: What the request asked for, as the client spelled it; noted where it is known.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code if code is not None else self.default_code
        self.retry_after_s = retry_after_s
        self.models: tuple[str, ...] = ()


class InvalidRequest(ProviderError):
    """The request cannot be served as it stands; sending it again is pointless."""

    status = 400
    type = "invalid_request_error"
    default_code = "invalid_request"


class UnsupportedParameter(InvalidRequest):
    """A known field asks for something this server or model cannot do."""

    default_code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    """The prompt leaves no room for one new token."""

    default_code = "context_length_exceeded"


class ModelNotFound(InvalidRequest):
    """No model of that id or alias is served."""

    status = 404
    default_code = "model_not_found"


class NotFound(InvalidRequest):
    """No such path."""

    status = 404
    default_code = "not_found"


class NoEndpoints(NotFound):
    """The model is served, but not as the request wants it.

    Args:
        message: For the client.
        param: The preference that rules it out.
        code: Which kind of preference, in OpenRouter's vocabulary of availability.
        excluded_by: The same in its vocabulary of filters, if it has a word for it.
    """

    default_code = "no_endpoints"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        excluded_by: str | None = None,
    ) -> None:
        super().__init__(message, param=param, code=code)
        self.excluded_by = excluded_by


class MethodNotAllowed(InvalidRequest):
    """The path exists, the method does not."""

    status = 405
    default_code = "method_not_allowed"


class RequestTimeout(InvalidRequest):
    """The client took too long to send its request."""

    status = 408
    default_code = "request_timeout"


class Conflict(InvalidRequest):
    """Its idempotency key or id is that of something that it does not repeat, or not now."""

    status = 409
    default_code = "idempotency_conflict"


class RequestTooLarge(InvalidRequest):
    """The body is over the limit."""

    status = 413
    default_code = "request_too_large"


class UnsupportedMediaType(InvalidRequest):
    """The body is not JSON, or is encoded in a way we do not read."""

    status = 415
    default_code = "unsupported_media_type"


class AuthenticationFailed(ProviderError):
    """No key, or a key nobody knows."""

    status = 401
    type = "invalid_request_error"
    default_code = "invalid_api_key"


class InsufficientCredits(ProviderError):
    """The key's limit or its account's credits do not cover the request; only payment helps."""

    status = 402
    type = "insufficient_quota"
    default_code = "insufficient_credits"


class PermissionDenied(ProviderError):
    """The key is known and may not do this."""

    status = 403
    type = "permission_error"
    default_code = "forbidden"


class RateLimited(ProviderError):
    """A limit of the key is reached."""

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"


class Overloaded(RateLimited):
    """Every slot and queue place is taken; the request was shed before any work."""

    default_code = "overloaded"


class Unavailable(ProviderError):
    """This replica serves nothing right now: starting, draining, or broken."""

    status = 503
    default_code = "not_ready"


class DeadlineExceeded(ProviderError):
    """The request's own deadline passed before it ended."""

    status = 504
    default_code = "deadline_exceeded"


class BackendError(ProviderError):
    """A model runner failed."""

    status = 502
    default_code = "backend_error"


class StepFailed(BackendError):
    """One step failed; its sequences end with an error and the engine goes on."""


class EngineDead(BackendError):
    """The engine cannot go on; the process ends and its platform starts another."""

    status = 503
    default_code = "backend_unavailable"


class PluginError(ProviderError):
    """A plugin is missing, broken, or answered wrongly; stops start-up."""

    default_code = "plugin_error"


class ConfigurationError(ProviderError):
    """A setting is invalid; stops start-up and names the setting."""

    default_code = "configuration_error"


class SecretNotFound(ConfigurationError):
    """A secret that the configuration names is not there: a key that it was is let in no more."""
