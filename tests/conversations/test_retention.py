"""What nobody has used for long is removed, and nothing else, whatever the clock shows."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs
from uuid_utils import uuid7

from gateway_svc.conversations.files.store import FileConversations
from gateway_svc.conversations.retention import DAY_MS, MAX_JUMP_MS, Retention
from gateway_svc.conversations.session import SessionState

NOW_MS = 1_795_000_000_000


class House:
    """Sessions that were used 1, 10 and 40 days ago, of which those of more than 30 days go."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.home = FileConversations(folder)
        self.ids: dict[int, str] = {}

    async def fill(self) -> None:
        for days in (40, 10, 1):
            used_ms = NOW_MS - days * DAY_MS
            state = SessionState(str(uuid7()), revision=1, created_at_ms=used_ms - 1, updated_at_ms=used_ms)
            await self.home.create(state, synced=False)
            self.ids[days] = state.id

    def retention(self) -> Retention:
        return Retention(self.home, self.home.remove, 30, self._folder / "retention.json")

    async def left(self) -> list[int]:
        kept = {state.id for state in (await self.home.list_page(9, None, None)).states}
        return [days for days, session_id in self.ids.items() if session_id in kept]


@pytest.fixture
async def house(tmp_path) -> House:
    house = House(tmp_path)
    await house.fill()
    return house


async def test_what_was_not_used_for_so_long_is_removed_and_told(house):
    with capture_logs() as logs:
        assert await house.retention().look(NOW_MS) == 1
    assert await house.left() == [10, 1]
    assert [(line["event"], line.get("session_id")) for line in logs] == [
        ("session.removed", house.ids[40]),
        ("retention.finished", None),
    ]


async def test_a_session_in_use_and_one_that_is_damaged_are_seen_too(house, tmp_path):
    lease = await house.home.open(house.ids[40])
    assert await house.retention().look(NOW_MS) == 0
    await lease.close()
    (path,) = tmp_path.rglob(f"{house.ids[40]}.session")
    path.write_bytes(b"")
    assert await house.retention().look(path.stat().st_mtime_ns // 1_000_000 + 31 * DAY_MS) == 0, "a jump"
    assert await house.left() == [10, 1]


@pytest.mark.parametrize("jump_ms", [MAX_JUMP_MS + 1, 10_000 * DAY_MS, -MAX_JUMP_MS - 1])
async def test_a_clock_that_jumps_removes_nothing_for_a_day(house, jump_ms):
    assert await house.retention().look(NOW_MS) == 1
    jumped_ms = NOW_MS + jump_ms
    with capture_logs() as logs:
        for hours in range(24):
            assert await house.retention().look(jumped_ms + hours * 3_600_000) == 0
    assert [line["event"] for line in logs] == ["retention.waits"]
    assert await house.retention().look(NOW_MS) == 0, "it was mended"
    assert await house.left() == [10, 1]


async def test_after_a_long_pause_it_goes_on_a_day_later(house):
    assert await house.retention().look(NOW_MS) == 1
    later_ms = NOW_MS + 25 * DAY_MS
    assert await house.retention().look(later_ms) == 0
    assert await house.retention().look(later_ms + DAY_MS) == 1
    assert await house.left() == [1]


async def test_a_clock_that_is_wrong_at_the_first_look_removes_nothing(house):
    assert await house.retention().look(NOW_MS + 10_000 * DAY_MS) == 0
    assert await house.left() == [40, 10, 1]
