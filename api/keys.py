"""The keys of this service, as its settings say."""

from api.settings import BadSettings, Settings
from services.accounts.secrets import SecretKeys, SecretUnusable, kept_secret


def secret_keys(settings: Settings) -> SecretKeys:
    """The keys of this service; where the operator gave none, a secret is made and kept. Raises BadSettings."""
    try:
        return SecretKeys(settings.secret_keys or [kept_secret(settings.data_dir / "secret_key")])
    except SecretUnusable as error:
        raise BadSettings(str(error)) from error
