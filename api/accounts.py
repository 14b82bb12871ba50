"""Accounts: who has one, and how people sign in."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from api.access import Access
from api.settings import Settings
from db.ids import LOCAL_OWNER
from db.pool import Database
from db.stores.invitations import InvitationStore
from db.stores.sign_ins import SignInStore
from db.stores.users import UserStore
from services.accounts.administration import UserAdministration
from services.accounts.guesses import GuessLimits, GuessSettings
from services.accounts.invitations import Invitations
from services.accounts.passwords import PasswordCosts, Passwords
from services.accounts.profiles import Profiles
from services.accounts.registration import Registration
from services.accounts.secrets import SecretKeys
from services.accounts.sign_ins import SignIns
from services.audit import AuditLog
from services.first_run.welcome import Welcome
from services.images import ImageService


@dataclass(frozen=True, slots=True)
class Accounts:
    """What routes are given of it."""

    registration: Registration
    sign_ins: SignIns
    profiles: Profiles
    administration: UserAdministration
    invitations: Invitations
    setup_code: str | None
    """What the first account needs, if there is none yet and it needs anything."""


async def open_accounts(
    settings: Settings,
    database: Database,
    secrets: SecretKeys,
    access: Access,
    audit: AuditLog,
    welcome: Welcome,
    images: ImageService,
    stack: AsyncExitStack,
) -> Accounts:
    """Accounts, or what goes in their place where there are none; whoever is there already is made welcome."""
    with_accounts = settings.auth_mode == "accounts"
    users, store = UserStore(database), SignInStore(database)
    greeter = welcome if settings.first_run_content else None
    if not with_accounts:
        await users.ensure(LOCAL_OWNER, "You")
        if greeter is not None:
            await greeter.greet(LOCAL_OWNER)
    passwords = Passwords(
        PasswordCosts(settings.passwords.memory_kib, settings.passwords.passes, settings.passwords.lanes),
        at_once=settings.passwords.at_once,
        waiting=settings.passwords.waiting,
    )
    await stack.enter_async_context(passwords.running())
    guesses = GuessLimits(_guess_settings(settings))
    sign_ins = SignIns(
        users,
        store,
        passwords,
        access.tokens,
        secrets.derive("refresh tokens"),
        guesses,
        access.alarm,
        audit,
        refresh_seconds=settings.tokens.refresh_seconds,
        per_user=settings.limits.sign_ins_per_user,
    )
    registration = Registration(
        settings.registration,
        users,
        passwords,
        sign_ins,
        secrets.derive("setup code"),
        guesses,
        audit,
        greeter,
        is_public=not settings.is_for_this_machine,
    )
    return Accounts(
        registration=registration,
        sign_ins=sign_ins,
        profiles=Profiles(users, passwords, guesses, access.alarm, audit),
        administration=UserAdministration(users, passwords, images, access.alarm, audit),
        invitations=Invitations(InvitationStore(database), users, audit),
        setup_code=await registration.setup_code() if with_accounts else None,
    )


def _guess_settings(settings: Settings) -> GuessSettings:
    guessing = settings.guessing
    return GuessSettings(
        guessing.seconds,
        guessing.per_account_and_address,
        guessing.per_account,
        guessing.per_address,
        guessing.registrations_per_address,
    )


def setup_lines(accounts: Accounts) -> Sequence[str]:
    """What the operator has to know at the start."""
    if accounts.setup_code is None:
        return []
    return [f"Nobody has an account yet. The first to register needs this invite code: {accounts.setup_code}"]
