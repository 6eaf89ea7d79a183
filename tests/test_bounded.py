"""What was used last stays, up to a bound."""

from __future__ import annotations

from napari_medsam.bounded import BoundedMemory


def test_the_least_recently_used_goes_first() -> None:
    memory: BoundedMemory[str, int] = BoundedMemory(2)
    memory.put("a", 1), memory.put("b", 2)
    assert memory.get("a") == 1
    memory.put("c", 3)
    assert ("a" in memory, "b" in memory, "c" in memory) == (True, False, True)
    assert memory.get("b") is None
    memory.clear()
    assert len(memory) == 0


def test_sizes_add_up_and_a_value_is_counted_once() -> None:
    memory: BoundedMemory[str, bytes] = BoundedMemory(10, len)
    memory.put("a", b"1234"), memory.put("b", b"1234")
    memory.put("a", b"123456")
    assert (memory.get("a"), memory.get("b")) == (b"123456", b"1234")
    memory.put("c", b"1")
    assert ("a" in memory, "b" in memory) == (False, True)
    memory.put("d", b"too much of it")
    assert len(memory) == 0
    memory.put("e", b"1234567890")
    assert "e" in memory
