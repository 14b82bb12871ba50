"""Secrets that lie in files, as container engines and systemd hand them over: NAME_FILE instead of NAME."""

import os
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsError

_LARGEST = 65_536


class SecretFiles(PydanticBaseSettingsSource):
    """For each secret setting `NAME`, what stands in the file that `NAME_FILE` names in the environment."""

    def __init__(self, settings: type[BaseSettings]) -> None:
        super().__init__(settings)
        self._environment = {name.upper(): value for name, value in os.environ.items()}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The value, the field's name, and whether the value has to be taken apart."""
        return self._value(field, field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {name: self._value(field, name) for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}

    def _value(self, field: FieldInfo, field_name: str) -> str | None:
        name = field_name.upper()
        path = self._environment.get(f"{name}_FILE")
        if not path or SecretStr not in (field.annotation, *get_args(field.annotation)):
            return None
        if self._environment.get(name):
            raise SettingsError(f"{name}: {name}_FILE is set too: which of them counts?")
        try:
            with Path(path).open(encoding="utf-8") as file:
                return file.read(_LARGEST).strip() or None
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise SettingsError(f"{name}: {name}_FILE cannot be read: {reason}.") from None
