"""Errors as RFC 9457 has them."""

from typing import Any

from pydantic import Field

from api.schemas.model import Answer


class FieldProblem(Answer):
    """One thing that is wrong with the request."""

    pointer: str = Field(description="Where, as a JSON pointer into the body; for a parameter, a slash and its name.")
    detail: str = Field(description="What is wrong there.")


class Problem(Answer):
    """Why a request was not carried out (application/problem+json, RFC 9457)."""

    type: str = Field(default="about:blank", description="Always about:blank: `code` names the problem.")
    title: str = Field(description="The meaning of the status.", examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(description="What happened and what to do, for people.")
    code: str = Field(description="The stable name of the problem, the same on sockets.", examples=["not_found"])
    errors: list[FieldProblem] = Field(default_factory=list[FieldProblem], description="What is wrong, place by place.")
    request_id: str | None = Field(description="What the service's log calls this request.")
    retryable: bool = Field(description="The same request may succeed later.")
    resend_safe: bool = Field(description="Sending it again cannot make anything happen twice.")
    details: dict[str, Any] = Field(default_factory=dict[str, Any], description="Figures that belong to the problem.")
