"""A strict reader of DER (X.690): one value after another, nothing left over."""

from __future__ import annotations

from .reading import Wrong

INTEGER, BOOLEAN, OCTETS, OID, TIME, SEQUENCE, SET = 0x02, 0x01, 0x04, 0x06, 0x18, 0x30, 0x31


class Value:
    """One value: its tag, its content, and all of its bytes."""

    def __init__(self, tag, content, whole):
        self.tag, self.content, self.whole = tag, content, whole

    def parts(self):
        """The values inside."""
        return read_all(self.content)

    def oid(self):
        """The numbers of an object identifier, with points."""
        numbers, value = [], 0
        if self.tag != OID or not self.content or self.content[-1] & 0x80:
            raise Wrong("an object identifier is malformed")
        for byte in self.content:
            value = value << 7 | byte & 0x7F
            if not byte & 0x80:
                numbers.append(value)
                value = 0
        first = min(numbers[0] // 40, 2)
        return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:]]))

    def integer(self):
        """A whole number."""
        if self.tag != INTEGER or not self.content:
            raise Wrong("an integer is malformed")
        return int.from_bytes(self.content, "big", signed=True)

    def octets(self):
        """The bytes of an octet string."""
        if self.tag != OCTETS:
            raise Wrong("an octet string is missing")
        return self.content


def read_one(data, place=0):
    """(the value that begins at a place, the place after it)."""
    if place + 2 > len(data) or data[place] & 0x1F == 0x1F:
        raise Wrong("DER that ends early, or has a long tag")
    tag, size, start = data[place], data[place + 1], place + 2
    if size & 0x80:
        count = size & 0x7F
        digits = data[start : start + count]
        size, start = int.from_bytes(digits, "big"), start + count
        if not 0 < count <= 4 or len(digits) != count or digits[0] == 0 or size < 0x80:
            raise Wrong("DER with a length that is not the shortest")
    if start + size > len(data):
        raise Wrong("DER that ends early")
    return Value(tag, data[start : start + size], data[place : start + size]), start + size


def read_all(data):
    """All values of some bytes."""
    found, place = [], 0
    while place < len(data):
        value, place = read_one(data, place)
        found.append(value)
    return found


def read_only(data, tag):
    """The one value that the bytes are, of a tag."""
    found = read_all(data)
    if len(found) != 1 or found[0].tag != tag:
        raise Wrong("DER of another kind than is called for")
    return found[0]
