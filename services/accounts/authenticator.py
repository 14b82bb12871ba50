"""Who asks: found from what a request shows."""

from typing import Protocol

from db.stores.sign_ins import SignInStore
from services.accounts.api_keys import PREFIX, ApiKeys
from services.accounts.caller import ALL_SCOPES, LOCAL_CALLER, USER_SCOPES, Caller, Credential
from services.accounts.tokens import AccessTokens
from services.errors import NotAuthenticated


class Authenticator(Protocol):
    """Finds out who asks."""

    async def authenticate(self, shown: str | None) -> Caller:
        """Who showed this access token or API key; None is who showed nothing. Raises `NotAuthenticated`."""
        ...


class LocalAuthenticator:
    """Without accounts, whoever reaches the service is its owner."""

    async def authenticate(self, shown: str | None) -> Caller:
        """The owner, whatever is shown."""
        return LOCAL_CALLER


class AccountAuthenticator:
    """Looks at every request anew: what was ended, deleted or disabled a moment ago counts."""

    def __init__(self, tokens: AccessTokens, sign_ins: SignInStore, keys: ApiKeys) -> None:
        self._tokens = tokens
        self._sign_ins = sign_ins
        self._keys = keys

    async def authenticate(self, shown: str | None) -> Caller:
        """Who showed this access token or API key. Raises `NotAuthenticated`."""
        if not shown:
            raise NotAuthenticated
        if shown.startswith(PREFIX):
            return await self._keys.verify(shown)
        claims = self._tokens.read(shown)
        user = await self._sign_ins.user_of(claims.sign_in_id, claims.user_id)
        if user is None:
            raise NotAuthenticated("This sign-in is over: sign in again.")
        scopes = ALL_SCOPES if user.is_admin else USER_SCOPES
        return Caller(user.id, scopes, Credential("sign_in", claims.sign_in_id))
