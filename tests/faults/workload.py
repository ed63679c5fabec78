"""The programs that work on the mount while the bucket misbehaves. Each checks whatever it is given.

An operation may fail with EIO or ETIMEDOUT while the fault is on; anything else, and anything that takes longer than the
deadline, is a violation. What an operation that failed may have left is remembered (see `model`), and checked as well.
"""

import errno
import os
import pathlib
import random
import stat
import threading
import time

from model import Model, Prefix, shown

BLOCK = 128 << 10


class Program(threading.Thread):
    """One program: repeats `step` until it is told to stop, with a pause after each."""

    pause_s = 0.02

    def __init__(self, world, name, seed):
        super().__init__(daemon=True, name=name)
        self.world, self.ledger = world, world.ledger
        self.root = pathlib.Path(world.mount.path)
        self.choose = random.Random(f"{seed}-{name}")
        self.stopping = threading.Event()
        self.crashed = None

    def run(self):
        try:
            while not self.stopping.is_set():
                try:
                    self.step()
                except OSError:
                    pass  # it is in the ledger
                self.stopping.wait(self.pause_s * self.choose.uniform(0.5, 1.5))
        except Exception as error:  # a mistake of the suite, or the mount is gone: never silent
            self.crashed = error
            self.ledger.note_wrong(f"{self.name} ended: {error!r}")

    def do(self, what, function, *args, also=()):
        """One system call, timed and judged."""
        began = time.monotonic()
        try:
            answer = function(*args)
        except OSError as error:
            self.ledger.record(what, began, error, also)
            raise
        self.ledger.record(what, began)
        return answer

    def read_whole(self, path, also=()):
        """The bytes, or None where there is no such file."""
        what = path.relative_to(self.root)
        try:
            fd = self.do(f"open {what}", os.open, path, os.O_RDONLY, also=(errno.ENOENT, *also))
        except FileNotFoundError:
            return None
        try:
            chunks = []
            while chunk := self.do(f"read {what}", os.read, fd, BLOCK, also=also):
                chunks.append(chunk)
            return b"".join(chunks)
        finally:
            os.close(fd)


class Saver(Program):
    """Saves, rewrites, moves and removes small files in a directory of its own."""

    names = 24

    def __init__(self, world, name, seed):
        super().__init__(world, name, seed)
        self.model, self.folder = Model(), self.root / name
        self.made, self.serial = False, 0

    def size(self):
        return self.choose.choice([0, 10, 3_000, 30_000, 120_000, 300_000])

    def data(self):
        return self.choose.randbytes(self.size())

    def step(self):
        if not self.made:
            return self.make_folder()
        if self.model.moves:
            return self.resolve_move(*self.model.moves[0])
        if unsure := self.model.unsure():
            return self.resolve(self.choose.choice(unsure))
        present = [name for name in self.model.present() if "/" not in name]
        if len(present) < 3:
            return self.create()
        actions = {
            self.create: 4, self.rewrite: 3, self.append: 2, self.patch: 1, self.replace: 4, self.truncate: 1,
            self.remove: 3, self.move: 2, self.move_directory: 1, self.read: 5, self.list: 2, self.attributes: 1,
        }  # fmt: skip
        self.choose.choices(list(actions), actions.values())[0]()

    def make_folder(self):
        try:
            self.do(f"mkdir {self.name}", os.mkdir, self.folder, also=(errno.EEXIST,))
        except FileExistsError:
            pass
        self.made = True

    # ------------------------------------------------------------- names

    def pick(self):
        return self.choose.choice([name for name in self.model.present() if "/" not in name])

    def free_name(self):
        free = [name for name in (f"f{number:02}.bin" for number in range(self.names)) if self.model.may_be(name) == [None]]
        return self.choose.choice(free) if free else None

    def resolve(self, name):
        """After a failure: what is there now is what counts from here on."""
        found = self.read_whole(self.folder / name)
        self.judge(name, found)
        self.model.settle(name, found)

    def resolve_move(self, old, new):
        """After a rename that failed: the content is under one of its names."""
        found = {name: self.read_whole(self.folder / name) for name in (old, new)}
        for name, content in found.items():
            self.judge(name, content)
            self.model.settle(name, content)
        if found[old] is None and found[new] is None:
            self.ledger.note_wrong(f"{self.name}/{old}: neither there nor at {new} after a rename that failed")
        self.model.moves.remove((old, new))

    def judge(self, name, found):
        if line := self.model.wrong(name, found):
            self.ledger.note_wrong(f"{self.name}/{line}", f"{self.name}/{name}")

    # ----------------------------------------------------------- changes

    def change(self, after, function, *args):
        """Runs `function`, after which the names hold `after` ({name: content}); if it fails, that or what they held."""
        try:
            function(*args)
        except OSError:
            for name, content in after.items():
                self.model.doubt(name, content)
            raise
        for name, content in after.items():
            self.model.settle(name, content)

    def write(self, name, data, flags, partial=None):
        """`partial`: what a failure half-way may leave beside the old and the new content."""
        path, what = self.folder / name, f"{self.name}/{name}"
        fd = self.do(f"create {what}" if flags & os.O_CREAT else f"open {what}", os.open, path, os.O_WRONLY | flags, 0o644)
        try:
            view = memoryview(data)
            while view:
                view = view[self.do(f"write {what}", os.write, fd, view[: 1 << 20]) :]
            if self.choose.random() < 0.15:
                self.do(f"fsync {what}", os.fsync, fd)
        except OSError:
            self.model.doubt(name, *(partial if partial is not None else [Prefix(data)]))
            try:
                os.close(fd)
            except OSError:
                pass
            raise
        try:
            self.do(f"close {what}", os.close, fd)
        except OSError:
            self.model.doubt(name, *(partial if partial is not None else [Prefix(data)]))
            raise

    def create(self):
        if name := self.free_name():
            data = self.data()
            self.change({name: data}, self.write, name, data, os.O_CREAT | os.O_EXCL)

    def rewrite(self):
        name, data = self.pick(), self.data()
        self.change({name: data}, self.write, name, data, os.O_TRUNC)

    def append(self):
        name, more = self.pick(), self.choose.randbytes(2_000)
        data = self.model.content(name) + more
        self.change({name: data}, self.write, name, more, os.O_APPEND, [Prefix(data)])

    def patch(self):
        """Writes into the middle."""
        name = self.pick()
        old, more = self.model.content(name), self.choose.randbytes(500)
        at = self.choose.randrange(len(old) + 1)
        data = old[:at] + more + old[at + len(more) :]

        def write_in_the_middle():
            fd = self.do(f"open {self.name}/{name}", os.open, self.folder / name, os.O_RDWR)
            try:
                self.do(f"pwrite {self.name}/{name}", os.pwrite, fd, more, at)
            finally:
                self.do(f"close {self.name}/{name}", os.close, fd)

        self.change({name: data}, write_in_the_middle)

    def replace(self):
        """A temporary file, renamed over."""
        self.serial += 1
        name, temporary, data = self.pick(), f"t{self.serial}.tmp", self.data()
        self.change({temporary: data}, self.write, temporary, data, os.O_CREAT | os.O_EXCL)
        self._rename(temporary, name, data)

    def truncate(self):
        name = self.pick()
        size = self.choose.randrange(len(self.model.content(name)) + 1)
        self.change({name: self.model.content(name)[:size]}, self.do, f"truncate {self.name}/{name}", os.truncate, self.folder / name, size)

    def remove(self):
        name = self.pick()
        self.change({name: None}, self.do, f"unlink {self.name}/{name}", os.unlink, self.folder / name)
        if self.read_whole(self.folder / name) is not None:
            self.ledger.note_wrong(f"{self.name}/{name}: still there after it was removed")

    def move(self):
        if new := self.free_name():
            self._move(self.pick(), new)

    def _move(self, old, new):
        self._rename(old, new, self.model.content(old))

    def _rename(self, old, new, data):
        try:
            self.do(f"rename {self.name}/{old} -> {self.name}/{new}", os.rename, self.folder / old, self.folder / new)
        except OSError:
            self.model.doubt(old, None)
            self.model.doubt(new, data)
            self.model.moves.append((old, new))
            raise
        self.model.settle(old, None)
        self.model.settle(new, data)

    def move_directory(self):
        """Makes a directory with files, renames it, and sometimes takes it away again."""
        self.serial += 1
        old, new = f"d{self.serial}", f"e{self.serial}"
        self.model.directories[old] = None
        self.do(f"mkdir {self.name}/{old}", os.mkdir, self.folder / old)
        names = [f"{number}.bin" for number in range(self.choose.randint(1, 3))]
        contents = {name: self.data() for name in names}
        for name, data in contents.items():
            self.change({f"{old}/{name}": data}, self.write, f"{old}/{name}", data, os.O_CREAT | os.O_EXCL)
        if self.choose.random() < 0.5:
            # Once it is in the bucket, the rename is copies and deletes.
            self.stopping.wait(0.6)
        try:
            self.do(f"rename {self.name}/{old}/", os.rename, self.folder / old, self.folder / new)
        except OSError:
            for name, data in contents.items():
                self.model.doubt(f"{old}/{name}", None)
                self.model.doubt(f"{new}/{name}", data)
                self.model.moves.append((f"{old}/{name}", f"{new}/{name}"))
            raise
        self.model.directories[old] = False
        for name, data in contents.items():
            self.model.settle(f"{old}/{name}", None)
            self.model.settle(f"{new}/{name}", data)
        if self.choose.random() < 0.7:
            self.remove_directory(new, names)

    def remove_directory(self, directory, names):
        for name in names:
            inside = f"{directory}/{name}"
            self.change({inside: None}, self.do, f"unlink {self.name}/{inside}", os.unlink, self.folder / inside)
        self.model.directories[directory] = None
        self.do(f"rmdir {self.name}/{directory}", os.rmdir, self.folder / directory)
        self.model.directories[directory] = False

    # ------------------------------------------------------------ looking

    def read(self):
        name = self.pick()
        self.judge(name, self.read_whole(self.folder / name))

    def list(self):
        seen = self.do(f"list {self.name}", self._kinds)
        for name, may_be in self.model.files.items():
            if "/" not in name and self.model.is_sure(name) and (may_be[0] is not None) != (name in seen):
                what, kind = f"{self.name}/{name}", seen.get(name)
                listing = f"the listing has it as a {kind}" if kind else "the listing lacks it"
                self.ledger.note_wrong(f"{what}: due is {shown(may_be[0])}, {listing}, stat says {self._stat(name)}", what)

    def _kinds(self):
        with os.scandir(self.folder) as entries:
            return {entry.name: "directory" if entry.is_dir(follow_symlinks=False) else "file" for entry in entries}

    def _stat(self, name):
        """For a person who looks into a wrong listing."""
        try:
            found = os.lstat(self.folder / name)
        except OSError as error:
            return errno.errorcode.get(error.errno)
        return f"{stat.filemode(found.st_mode)} {found.st_size}"

    def attributes(self):
        """What Django does after each save."""
        name = self.pick()
        self.do(f"chmod {self.name}/{name}", os.chmod, self.folder / name, self.choose.choice([0o644, 0o600, 0o640]))
        size = self.do(f"stat {self.name}/{name}", os.stat, self.folder / name).st_size
        if size != len(self.model.content(name)):
            self.ledger.note_wrong(f"{self.name}/{name}: {size} bytes by stat, due is {shown(self.model.content(name))}")


class BigSaver(Saver):
    """Saves files that go up in parts, rewrites them, appends to them, patches them; one at a time is on its way."""

    pause_s = 1.0
    names = 2

    def size(self):
        return self.choose.randrange(self.world.big_bytes, self.world.big_bytes * 2)

    def step(self):
        if not self.made:
            return self.make_folder()
        if self.model.moves:
            return self.resolve_move(*self.model.moves[0])
        if unsure := self.model.unsure():
            return self.resolve(self.choose.choice(unsure))
        if not self.model.present():
            return self.create()
        actions = {self.create: 3, self.rewrite: 3, self.append: 2, self.patch: 2, self.replace: 2, self.move: 2, self.remove: 1, self.read: 2}
        self.choose.choices(list(actions), actions.values())[0]()
        # The cache has room for what is dirty: the next waits until this one is up, or can't be.
        self.stopping.wait(self.choose.uniform(0, 2))
        for name in self.model.present():
            fd = self.do(f"open {self.name}/{name}", os.open, self.folder / name, os.O_RDONLY)
            try:
                self.do(f"fsync {self.name}/{name}", os.fsync, fd)
            finally:
                os.close(fd)


class Reader(Program):
    """Reads what another client has put into the bucket, more than the cache holds: whole, in ranges, at random."""

    pause_s = 0.1

    def step(self):
        name, data = self.choose.choice(list(self.world.cold.items()))
        path = self.root / "cold" / name
        how = self.choose.random()
        if how < 0.5:
            found = self.read_whole(path)
            if found != data:
                self.ledger.note_wrong(f"cold/{name}: {self.difference(found, data)}")
            return
        fd = self.do(f"open cold/{name}", os.open, path, os.O_RDONLY)
        try:
            for _ in range(1 if how < 0.75 else 5):
                start = self.choose.randrange(len(data))
                length = self.choose.choice([1, 4096, 100_000]) if how >= 0.75 else self.choose.randrange(1, len(data) - start + 1)
                for at in range(start, min(start + length, len(data)), BLOCK):
                    end = min(at + BLOCK, start + length, len(data))
                    found = self.read_range(f"pread cold/{name}", fd, end - at, at)
                    if found != data[at:end]:
                        self.ledger.note_wrong(f"cold/{name} from {at}: {self.difference(found, data[at:end])}")
        finally:
            os.close(fd)

    def read_range(self, what, fd, length, at):
        """The kernel gives what it has of a range whose rest it can't get: who asks on gets that, or the error."""
        found = b""
        while len(found) < length and (more := self.do(what, os.pread, fd, length - len(found), at + len(found))):
            found += more
        return found

    @staticmethod
    def difference(found, due):
        if found is None or len(found) != len(due):
            return f"found {shown(found)}, due is {shown(due)}"
        at = next(at for at, (one, other) in enumerate(zip(found, due)) if one != other)
        return f"of {len(due)} bytes, byte {at} is {found[at]:#x} and not {due[at]:#x}"


class Looker(Program):
    """Lists, stats, asks for free space and status: what monitoring does all the time."""

    pause_s = 0.5

    def step(self):
        self.do("statvfs", os.statvfs, self.root)
        seen = set(self.do("list cold", os.listdir, self.root / "cold"))
        if seen != set(self.world.cold):
            self.ledger.note_wrong(f"cold: the listing differs by {sorted(seen ^ set(self.world.cold))[:5]}")
        name = self.choose.choice(list(self.world.cold))
        size = self.do(f"stat cold/{name}", os.stat, self.root / "cold" / name).st_size
        if size != len(self.world.cold[name]):
            self.ledger.note_wrong(f"cold/{name}: {size} bytes by stat, due is {len(self.world.cold[name])}")
        self.do("status", os.getxattr, self.root, "user.mediafs.status")
        try:
            self.do("stat missing", os.stat, self.root / "cold" / f"no-{self.choose.randrange(1000)}", also=(errno.ENOENT,))
            self.ledger.note_wrong("cold/no-…: a file that nobody made is there")
        except FileNotFoundError:
            pass


class Denied(Saver):
    """Saves where the bucket refuses all writes: that has to be visible, and to hold up nobody else."""

    pause_s = 0.5
    names = 12
    seen = 0

    def state(self, name):
        return os.getxattr(self.folder / name, "user.mediafs.state").decode()

    def step(self):
        if not self.made:
            return self.make_folder()
        if (name := self.free_name()) is None:
            return self.read()
        data = self.data()
        refused = False
        began = time.monotonic()
        try:
            self.change({name: data}, self.write, name, data, os.O_CREAT | os.O_EXCL)
        except PermissionError:
            refused = True
            self.model.settle(name, data)
        if began < self.ledger.fault_surely_from or self.ledger.fault_to != float("inf"):
            return
        end = time.monotonic() + 10
        while (state := self.state(name)) != "failed" and time.monotonic() < end and self.ledger.fault_to == float("inf"):
            time.sleep(0.1)
        if self.ledger.fault_to != float("inf"):
            return
        if state != "failed":
            self.ledger.note_wrong(f"{self.name}/{name}: its state is {state!r} where the bucket refused it")
        fd = os.open(self.folder / name, os.O_RDWR)
        try:
            os.fsync(fd)
            if self.ledger.fault_to == float("inf"):
                self.ledger.note_wrong(f"{self.name}/{name}: fsync succeeded where the bucket refuses it (refused at close: {refused})")
        except PermissionError:
            self.seen += 1
        finally:
            try:
                os.close(fd)
            except PermissionError:
                pass
        self.judge(name, self.read_whole(self.folder / name))

    def write(self, name, data, flags, partial=None):
        fd = self.do(f"create {self.name}/{name}", os.open, self.folder / name, os.O_WRONLY | flags, 0o644)
        try:
            os.write(fd, data)
        finally:
            self.do(f"close {self.name}/{name}", os.close, fd, also=(errno.EACCES,))
