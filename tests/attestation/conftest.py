"""Fixtures."""

from platform_fixtures import other_platform, platform, real

__all__ = ["other_platform", "platform", "real"]
