"""A worker is known again after a restart by a name that is nobody else's."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stream.clients.names import check_member_name, folder_name


@pytest.mark.parametrize("name", ["updater-0", "a", "UPDATER_1.b3", "x" * 249])
def test_what_kafka_takes_as_a_name_is_taken(name: str) -> None:
    check_member_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "two words", "x" * 250, "höhe", "a/b", "a\n"])
def test_what_kafka_refuses_as_a_name_is_refused_before_it_gets_there(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        check_member_name(name)


def test_a_folder_keeps_its_name_and_has_it_alone(tmp_path: Path) -> None:
    one, two = folder_name(tmp_path / "one"), folder_name(tmp_path / "two")
    assert one == folder_name(tmp_path / "one") != two
    check_member_name(one)


def test_whoever_is_first_to_name_a_folder_names_it_for_all(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(folder_name, [tmp_path] * 64))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["name"]
