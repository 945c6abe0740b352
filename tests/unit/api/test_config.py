"""Settings: what is refused, and how it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from torpor_api.config import BadSettings, read_config

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TORPOR_LISTEN", "8000"),
        ("TORPOR_LISTEN", "127.0.0.1:99999"),
        ("TORPOR_LISTEN", "::1:8000"),
        ("TORPOR_IDLE_SECONDS", "inf"),
        ("TORPOR_IDLE_SECONDS", "nan"),
        ("TORPOR_IDLE_SECONDS", "-1"),
        ("TORPOR_IDLE_SECONDS", "0"),
        ("TORPOR_IDLE_SECONDS", "soon"),
        ("TORPOR_QUIET_SAVE_SECONDS", "-2"),
        ("TORPOR_MEMORY_PER_MACHINE", "255MiB"),
        ("TORPOR_MEMORY_PER_MACHINE", "1 parsec"),
        ("TORPOR_MEMORY_PER_MACHINE", "inf"),
        ("TORPOR_MEMORY_PER_MACHINE", "-1GiB"),
        ("TORPOR_MEMORY_TOTAL", "512MiB"),
        ("TORPOR_OUTPUT_LIMIT", "0"),
        ("TORPOR_TIMEOUT_SECONDS", "0.5"),
        ("TORPOR_TIMEOUT_MAXIMUM_SECONDS", "14"),
        ("TORPOR_DRAIN_SECONDS", "1e400"),
        ("TORPOR_LOG_DAYS", "never"),
        ("TORPOR_OUTPUT_DAYS", "0"),
        ("TORPOR_DATABASE_URL", "postgresql://localhost/torpor"),
        ("TORPOR_STORE_URL", "s3://"),
        ("TORPOR_PACKAGE_INDEX", "ftp://example.com/simple"),
        ("TORPOR_PACKAGE_ALLOW", "tidy,../x"),
        ("TORPOR_PACKAGE_BYTES", "0"),
        ("TORPOR_UPLOADS_PER_ACCOUNT", "0"),
        ("TORPOR_DISK_RESERVE", "-1GiB"),
        ("TORPOR_BOOTSTRAP_API_KEY", "nodot"),
        ("TORPOR_BOOTSTRAP_API_KEY", "a.short"),
    ],
)
def test_a_bad_value_is_refused_with_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(BadSettings, match=name):
        read_config({})


def test_allowed_packages_are_names_with_commas_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORPOR_PACKAGE_INDEX", "https://me:secret@example.com/simple")
    monkeypatch.setenv("TORPOR_PACKAGE_ALLOW", " Tidy_Up, broom ,")
    config = read_config({})

    assert config.package_allow == {"tidy-up", "broom"}
    assert "secret" not in repr(config)


def test_a_bad_flag_is_refused_with_the_name_of_the_flag() -> None:
    with pytest.raises(BadSettings, match="--idle-seconds"):
        read_config({"idle_seconds": "never"})


def test_flags_win_over_variables_and_variables_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORPOR_IDLE_SECONDS", "5")
    monkeypatch.setenv("TORPOR_QUIET_SAVE_SECONDS", "1")

    config = read_config({"idle_seconds": "7", "quiet_save_seconds": None})

    assert (config.idle_seconds, config.quiet_save_seconds, config.timeout_seconds) == (7, 1, 15)


def test_a_log_may_be_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORPOR_LOG_DAYS", "forever")
    config = read_config({"output_days": "0.5"})

    assert (config.log_days, config.output_days, config.events_days) == (None, 0.5, 90)


def test_sizes_have_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORPOR_MEMORY_PER_MACHINE", "512MiB")
    monkeypatch.setenv("TORPOR_MEMORY_TOTAL", "2 GiB")

    config = read_config({})

    assert (config.memory_per_machine, config.memory_total_bytes) == (512 * MIB, 2048 * MIB)


def test_the_database_and_the_store_are_in_the_data_folder(tmp_path: Path) -> None:
    config = read_config({"data_dir": tmp_path})

    assert config.database == f"sqlite:///{tmp_path}/torpor.db"
    assert config.store == f"file://{tmp_path}/store"


def test_the_key_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORPOR_BOOTSTRAP_API_KEY", "alice.0123456789abcdef")

    assert "0123456789abcdef" not in repr(read_config({}))


def test_a_store_is_a_folder_or_a_bucket() -> None:
    assert read_config({"store_url": "s3://bucket/prefix"}).store == "s3://bucket/prefix"
    with pytest.raises(BadSettings, match=r"--store-url: .*s3://bucket/prefix"):
        read_config({"store_url": "https://bucket.example/prefix"})
