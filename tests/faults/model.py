"""What a program may find in its directory: one content for each name, or several where an operation failed half-way.

A content is bytes, None (no such file), or a `Prefix`: some beginning of what was being written.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Prefix:
    """Any beginning of `data`."""

    data: bytes


def fits(candidate, found):
    if isinstance(candidate, Prefix):
        return found is not None and candidate.data.startswith(found)
    return candidate == found


def shown(content):
    if content is None:
        return "nothing"
    if isinstance(content, Prefix):
        return f"a beginning of {len(content.data)} bytes"
    return f"{len(content)} bytes ({content[:4].hex()}…{content[-4:].hex()})" if content else "no bytes"


class Model:
    """The names of one directory tree, relative to it, with what each may hold. Used by one thread at a time."""

    def __init__(self):
        self.files = {}
        # Directories: True where it must be there, False where it must be gone, None where nobody can say.
        self.directories = {}
        # (old name, new name) of a rename that failed: the content is under one of them, never under neither.
        self.moves = []

    def may_be(self, name):
        return self.files.get(name, [None])

    def is_sure(self, name):
        return len(self.may_be(name)) == 1 and not isinstance(self.may_be(name)[0], Prefix)

    def content(self, name):
        """The content of a name that is sure."""
        return self.may_be(name)[0]

    def settle(self, name, content):
        self.files[name] = [content]

    def doubt(self, name, *more):
        """An operation failed: the name holds what it may have held, or one of `more`."""
        known = self.may_be(name)
        self.files[name] = known + [content for content in more if content not in known]

    def present(self):
        """The names that surely are files."""
        return [name for name, may_be in self.files.items() if self.is_sure(name) and may_be[0] is not None]

    def unsure(self):
        moved = {name for pair in self.moves for name in pair}
        return [name for name in self.files if not self.is_sure(name) and name not in moved]

    def wrong(self, name, found):
        """A line that says what is wrong with `found` under this name, or None."""
        if any(fits(candidate, found) for candidate in self.may_be(name)):
            return None
        return f"{name}: found {shown(found)}, due is {' or '.join(map(shown, self.may_be(name)))}"

    def verdict(self, found):
        """({name: bytes} of files, ...) against the promise: (wrong, lost, risen) as lines."""
        wrong, lost, risen = [], [], []
        for name in sorted(set(self.files) | set(found)):
            line = self.wrong(name, found.get(name))
            if line is None:
                continue
            if name not in found:
                lost.append(line)
            elif self.may_be(name) == [None]:
                risen.append(line)
            else:
                wrong.append(line)
        lost += [f"{old} and {new}: neither is there" for old, new in self.moves if old not in found and new not in found]
        return wrong, lost, risen
