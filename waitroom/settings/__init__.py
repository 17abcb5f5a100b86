"""The settings: every key with its type, default, bounds and description, and how they are loaded."""

from waitroom.settings.admin import UserSettings, Webhook
from waitroom.settings.bypass import BypassRule
from waitroom.settings.event import EventSettings
from waitroom.settings.gateway import Settings
from waitroom.settings.loader import from_json, load_settings, to_json
from waitroom.settings.room import RoomSettings

__all__ = [
    "BypassRule",
    "EventSettings",
    "RoomSettings",
    "Settings",
    "UserSettings",
    "Webhook",
    "from_json",
    "load_settings",
    "to_json",
]
