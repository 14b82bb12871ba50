"""Users, their sign-ins and invitations over REST."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import Field

from api.schemas.auth import Email, User
from api.schemas.model import Answer, Body, NotNull
from api.schemas.pages import Page
from db.ids import SignInId
from db.records import InvitationRecord, SignInRecord


class SignIn(Answer):
    """A device that is signed in."""

    id: UUID
    user_agent: str = Field(description="What the program called itself.")
    is_current: bool = Field(description="Whether this request belongs to it.")
    created_at: datetime
    last_used_at: datetime = Field(description="When it got new tokens last.")
    expires_at: datetime = Field(description="When it ends if it does not come back.")

    @classmethod
    def of(cls, record: SignInRecord, current: SignInId | None) -> Self:
        """What its user sees of it."""
        same = {name: getattr(record, name) for name in cls.model_fields if name != "is_current"}
        return cls(**same, is_current=record.id == current)


class SignInPage(Page[SignIn]):
    """Sign-ins, newest first."""


class Account(User):
    """A user, as administrators see them."""

    disabled_at: datetime | None


class AccountPage(Page[Account]):
    """Accounts, newest first."""


class AccountUpdate(Body):
    """The fields to change; those left out stay as they are."""

    is_admin: Annotated[bool, NotNull] = False
    is_disabled: Annotated[bool, NotNull] = Field(
        False, description="Ends all sign-ins and what they have begun, and lets nobody in."
    )

    def word_on(self, field: str) -> bool | None:
        """What the client said of that field; None if nothing."""
        return getattr(self, field) if field in self.model_fields_set else None


class NewPassword(Answer):
    """A password that was made for somebody."""

    password: str = Field(description="Shown this once; they should change it.")


class InvitationRequest(Body):
    """Somebody to be invited."""

    email: Email | None = Field(None, description="Only who has this address may use it; otherwise anybody.")
    days: int = Field(7, ge=1, le=90, description="How long it is good for.")


class Invitation(Answer):
    """Lets one person register."""

    id: UUID
    email: str | None
    created_by: UUID | None
    created_at: datetime
    expires_at: datetime
    used_by: UUID | None
    used_at: datetime | None

    @classmethod
    def of(cls, record: InvitationRecord) -> Self:
        """What administrators see of it."""
        return cls(**{name: getattr(record, name) for name in cls.model_fields})


class NewInvitation(Answer):
    """An invitation that was just made."""

    invite_code: str = Field(description="To be given with the registration; shown this once.")
    invitation: Invitation


class InvitationPage(Page[Invitation]):
    """Invitations, newest first."""
