"""How a model server is reached: what is saved of a connection, and what can be tried before it is saved."""

from dataclasses import dataclass, replace
from typing import Final

from db.records import ConnectionApi, ConnectionKind, ConnectionRecord
from services.connections.addresses import AddressRules, Gatekeeper, normalized
from services.errors import InvalidRequest
from services.providers.base import Provider, ProviderTimeouts
from services.providers.ollama import DEFAULT_NUM_CTX, OllamaProvider
from services.providers.openai import Azure, OpenAIAddress, OpenAIProvider
from services.providers.registry import DEFAULT_AZURE_API_VERSION

OPENAI_URL: Final = "https://api.openai.com/v1"
_SOCKETS = 100
"""At once, to one saved server."""


@dataclass(frozen=True, slots=True)
class Profile:
    """An address of a model server and how it is spoken to, without its key.

    No `base_url` is OpenAI's own. With Azure, the deployment is what elsewhere is the default model.
    """

    kind: ConnectionKind
    base_url: str | None = None
    api_version: str | None = None
    deployment: str | None = None
    default_model: str | None = None
    num_ctx: int | None = None
    api: ConnectionApi = "chat_completions"

    @classmethod
    def of(cls, record: ConnectionRecord) -> "Profile":
        """What is saved."""
        return cls(
            record.kind,
            record.base_url,
            record.api_version,
            record.deployment,
            record.default_model,
            record.num_ctx,
            record.api,
        )

    @property
    def url(self) -> str:
        """Where it leads."""
        return self.base_url or OPENAI_URL

    @property
    def model(self) -> str | None:
        """The model to ask where nobody names one."""
        return self.deployment or self.default_model

    def checked(self, rules: AddressRules) -> "Profile":
        """The same in the form in which it is stored. Raises `InvalidRequest`, `AddressNotAllowed`."""
        _refuse_foreign(self)
        if self.base_url is None:
            if self.kind != "openai":
                raise InvalidRequest(f"A connection to {self.kind} needs an address.", field="base_url")
            return self
        rules.check(self.base_url)
        return replace(self, base_url=normalized(self.base_url))


def _refuse_foreign(profile: Profile) -> None:
    """Refuse what only servers of another kind have: it would be kept and never used."""
    is_azure, is_ollama = profile.kind == "azure", profile.kind == "ollama"
    foreign = {
        "api_version": profile.api_version is not None and not is_azure,
        "deployment": profile.deployment is not None and not is_azure,
        "default_model": profile.default_model is not None and is_azure,
        "num_ctx": profile.num_ctx is not None and not is_ollama,
        "api": profile.api == "responses" and is_ollama,
    }
    for field, is_foreign in foreign.items():
        if is_foreign:
            hint = " Name a deployment instead." if field == "default_model" else ""
            raise InvalidRequest(f"A connection to {profile.kind} has no {field}.{hint}", field=field)


def make_provider(
    name: str, profile: Profile, key: str | None, gatekeeper: Gatekeeper, timeouts: ProviderTimeouts
) -> Provider:
    """The client for a profile, kept to its address. Raises `InvalidRequest`, `AddressNotAllowed`."""
    gate = gatekeeper.gate(profile.url)
    if profile.kind == "ollama":
        return OllamaProvider(
            profile.url,
            name=name,
            api_key=key,
            default_model=profile.model,
            num_ctx=profile.num_ctx or DEFAULT_NUM_CTX,
            timeouts=timeouts,
            max_connections=_SOCKETS,
            gate=gate,
        )
    azure = None
    if profile.kind == "azure":
        azure = Azure(profile.url, profile.api_version or DEFAULT_AZURE_API_VERSION)
    return OpenAIProvider(
        OpenAIAddress(key, None if azure else profile.base_url, azure),
        name=name,
        api=profile.api,
        default_model=profile.model,
        timeouts=timeouts,
        max_connections=_SOCKETS,
        gate=gate,
    )
