"""Accounts over REST."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field, SecretStr

from api.schemas.model import Answer, Body, Flag, Name, NotNull, Text
from db.records import UserRecord
from services.accounts.passwords import LONGEST, SHORTEST
from services.accounts.sign_ins import SignedIn

Email = Annotated[Text, Field(max_length=254, examples=["ada@example.org"], description="Case does not count.")]
Password = Annotated[SecretStr, Field(max_length=LONGEST)]
NewPassword = Annotated[
    SecretStr,
    Field(max_length=LONGEST, description=f"{SHORTEST} to {LONGEST} bytes in UTF-8, composed (NFC)."),
]
DisplayName = Annotated[Name, Field(max_length=100, description="What personas call you.")]
InviteCode = Annotated[Text, Field(max_length=200)]
RefreshToken = Annotated[
    SecretStr, Field(max_length=200, description="Left out, the cookie of the sign-in is taken instead.")
]


class Register(Body):
    """Somebody who wants an account."""

    email: Email
    password: NewPassword
    display_name: DisplayName | None = None
    invite_code: InviteCode | None = Field(
        None, description="Needed by invitation, and for the first account where the service has printed one."
    )


class Login(Body):
    """Somebody who has an account."""

    email: Email
    password: Password


class Refresh(Body):
    """A sign-in that goes on."""

    refresh_token: RefreshToken | None = None


class Logout(Body):
    """A sign-in that ends."""

    refresh_token: RefreshToken | None = None
    everywhere: Annotated[Flag, NotNull] = Field(False, description="All sign-ins of the user, not only this one.")


class UserUpdate(Body):
    """The fields to change; those left out stay as they are, null clears."""

    display_name: Annotated[DisplayName, NotNull] = ""
    timezone: Annotated[Text, Field(max_length=64, examples=["Europe/Vienna"])] | None = Field(
        None, description="For what scripts say of the time; null for UTC."
    )

    def changes(self) -> dict[str, Any]:
        """The fields that the client sent."""
        return self.given()


class PasswordChange(Body):
    """Another password."""

    current_password: Password
    new_password: NewPassword


class User(Answer):
    """Somebody to whom things belong."""

    id: UUID
    email: str | None = Field(description="Null for the owner of a service without accounts.")
    display_name: str
    is_admin: bool
    timezone: str | None
    default_persona_id: UUID | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, record: UserRecord) -> Self:
        """What users see of themselves. Who needs no e-mail, where there are no accounts, may do everything."""
        seen: dict[str, Any] = {name: getattr(record, name) for name in cls.model_fields}
        seen["is_admin"] = record.is_admin or record.email is None
        return cls(**seen)


class TokensAndUser(Answer):
    """What a sign-in gives."""

    access_token: str = Field(description="To be sent with each request: `Authorization: Bearer …`.")
    refresh_token: str = Field(description="To be used once, for new tokens; also set as a cookie.")
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - what kind of token it is
    expires_in: int = Field(description="Seconds that the access token lasts.")
    user: User

    @classmethod
    def of(cls, signed_in: SignedIn) -> Self:
        """What a client is given."""
        return cls(
            access_token=signed_in.access_token,
            refresh_token=signed_in.refresh_token,
            expires_in=signed_in.access_seconds,
            user=User.of(signed_in.user),
        )
