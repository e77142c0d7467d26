"""Where things are (strongroom.paths)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from strongroom import paths
from strongroom.errors import StrongroomError


def test_rule(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STRONGROOM_HOME", str(tmp_path / "a"))
    assert paths.home() == tmp_path / "a"
    monkeypatch.delenv("STRONGROOM_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert paths.home() == tmp_path / "strongroom"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")  # the specification: relative paths are ignored
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.home() == tmp_path / ".local/share/strongroom"


def test_home_is_private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "deep" / "home"
    monkeypatch.setenv("STRONGROOM_HOME", str(place))
    assert paths.ensure_home() == place
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o755)
    paths.ensure_home()
    assert place.stat().st_mode & 0o777 == 0o700


def test_file_or_link_in_place_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STRONGROOM_HOME", str(tmp_path / "file"))
    with pytest.raises(StrongroomError, match="not a folder"):
        paths.ensure_home()
    (tmp_path / "link").symlink_to("/tmp")
    monkeypatch.setenv("STRONGROOM_HOME", str(tmp_path / "link"))
    with pytest.raises(StrongroomError, match="not a folder"):
        paths.ensure_home()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a folder away")
def test_another_users_folder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "theirs"
    place.mkdir()
    os.chown(place, 65534, 65534)
    monkeypatch.setenv("STRONGROOM_HOME", str(place))
    with pytest.raises(StrongroomError, match="another user"):
        paths.ensure_home()


def test_long_home_gets_a_short_socket_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / ("x" * 120)
    monkeypatch.setenv("STRONGROOM_HOME", str(place))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path)[:0] or "/tmp")
    short = paths.socket_directory()
    try:
        assert short != place and len(str(short)) + 33 < paths.SUN_PATH_SIZE
        assert short == paths.socket_directory()
        assert short.stat().st_mode & 0o777 == 0o700
    finally:
        short.rmdir()


def test_native_not_built_names_the_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STRONGROOM_NATIVE", str(tmp_path))
    with pytest.raises(StrongroomError, match="make"):
        paths.native("strongroom-inject")
