"""Connections to model servers: those of the settings, and those that users save."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from pydantic import SecretStr

from api.settings import Settings
from db.pool import Database
from db.records import ConnectionRecord
from db.stores.connections import ConnectionStore
from services.accounts.secrets import SecretKeys
from services.audit import AuditLog
from services.connections.addresses import LOOPBACK, AddressRules, Gatekeeper
from services.connections.clients import ClientPool
from services.connections.directory import ConnectionDirectory
from services.connections.profile import Profile, make_provider
from services.connections.service import ConnectionService
from services.connections.trials import ConnectionTrials, TrialLimits
from services.connections.vault import PURPOSE, KeyVault
from services.providers.base import Provider, ProviderTimeouts
from services.providers.registry import Providers, ProviderSettings


@dataclass(frozen=True, slots=True)
class SavedConnections:
    """What users do with connections, and how the rest of the service finds them."""

    service: ConnectionService
    trials: ConnectionTrials
    directory: ConnectionDirectory


async def open_connections(
    settings: Settings,
    database: Database,
    environment: Providers,
    secrets: SecretKeys,
    audit: AuditLog,
    stack: AsyncExitStack,
) -> SavedConnections:
    """All on one pool of clients, which `stack` closes."""
    store, vault = ConnectionStore(database), KeyVault(secrets.derive(PURPOSE))
    gatekeeper = Gatekeeper(AddressRules(private_hosts(settings)))
    stack.callback(gatekeeper.close)
    timeouts = _timeouts(settings)

    def client(record: ConnectionRecord) -> Provider:
        return make_provider(record.name, Profile.of(record), vault.open(record), gatekeeper, timeouts)

    clients = ClientPool(client, most=settings.limits.model_clients)
    await stack.enter_async_context(clients.running())
    directory = ConnectionDirectory(environment, store, clients)
    trial_limits = TrialLimits(per_minute=settings.limits.connection_tests_per_minute)
    return SavedConnections(
        ConnectionService(
            store, environment, vault, gatekeeper.rules, audit, most=settings.limits.saved_connections_per_user
        ),
        ConnectionTrials(directory, gatekeeper, timeouts, trial_limits),
        directory,
    )


def private_hosts(settings: Settings) -> tuple[str, ...]:
    """Where connections of users may lead although it is not public."""
    if settings.allowed_private_hosts is not None:
        return settings.allowed_private_hosts
    return LOOPBACK if settings.auth_mode == "local" else ()


def provider_settings(settings: Settings) -> ProviderSettings:
    """What the operator has set up."""
    return ProviderSettings(
        default_provider=settings.default_provider,
        openai_api_key=_revealed(settings.openai_api_key),
        openai_base_url=settings.openai_base_url,
        openai_default_model=settings.openai_default_model,
        openai_api=settings.openai_api,
        azure_endpoint=settings.azure_openai_endpoint,
        azure_api_key=_revealed(settings.azure_openai_api_key),
        azure_api_version=settings.azure_openai_api_version,
        azure_deployment=settings.azure_openai_deployment,
        azure_api=settings.azure_openai_api,
        ollama_host=settings.ollama_host,
        ollama_default_model=settings.ollama_default_model,
        ollama_num_ctx=settings.ollama_num_ctx,
        timeouts=_timeouts(settings),
    )


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _timeouts(settings: Settings) -> ProviderTimeouts:
    seconds = settings.timeouts
    return ProviderTimeouts(seconds.connect, seconds.first_token, seconds.between_tokens)
