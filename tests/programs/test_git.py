"""A repository of git on the mount: hundreds of small files, temporary names, packs that are mapped into memory."""

import random

from bench import Bench, needs, run

FILES = 300


@needs("git")
class Git(Bench):
    def git(self, repository, *words):
        return run("git", "-C", repository, *words)

    def fill(self, repository):
        """Files in 15 folders; what is committed is what `expected` holds."""
        chosen = random.Random(9)
        for number in range(FILES):
            file = repository / f"folder{number % 15}" / f"file{number}.txt"
            file.parent.mkdir(exist_ok=True)
            file.write_text("\n".join(str(chosen.random()) for _ in range(chosen.randrange(1, 60))))

    def contents(self, repository):
        return {path.relative_to(repository): path.read_bytes() for path in repository.glob("folder*/*")}

    def sound(self, repository):
        self.git(repository, "fsck", "--full", "--strict")
        self.assertEqual(self.git(repository, "status", "--porcelain"), "")

    def make(self, repository):
        run("git", "init", "-q", "-b", "main", repository)
        self.fill(repository)
        self.git(repository, "add", ".")
        self.git(repository, "commit", "-qm", "all of it")
        self.git(repository, "checkout", "-qb", "other")
        for number in range(0, FILES, 10):
            (repository / f"folder{number % 15}" / f"file{number}.txt").write_text(f"changed {number}")
        self.git(repository, "mv", "folder3", "folder99")
        self.git(repository, "commit", "-qam", "some of it")
        self.git(repository, "tag", "-a", "-m", "a tag", "v1")

    def test_init_to_gc_and_after_an_empty_cache(self):
        mount = self.new_mount()
        repository = mount.path / "repository"
        self.make(repository)
        self.sound(repository)
        expected = self.contents(repository)
        self.git(repository, "checkout", "-q", "main")
        self.assertTrue((repository / "folder3").is_dir())
        self.git(repository, "checkout", "-q", "other")
        self.git(repository, "gc", "-q")
        self.sound(repository)
        self.assertEqual(self.git(repository, "count-objects").split()[0], "0")
        self.cold(mount)
        self.sound(repository)
        self.assertEqual(self.contents(repository), expected)
        self.git(repository, "stash", "list")
        (repository / "folder99/file3.txt").write_text("once more")
        self.git(repository, "stash")
        self.git(repository, "stash", "pop")
        self.git(repository, "commit", "-qam", "after the empty cache")
        self.git(repository, "repack", "-adq")
        self.sound(repository)

    def test_clones_to_from_and_within(self):
        mount = self.new_mount()
        source = self.local / "source"
        self.make(source)
        expected = self.contents(source)
        # A local path is cloned by hard links, which become copies; a URL goes through a pack.
        for number, url in enumerate([source, f"file://{source}"]):
            there, again, back = mount.path / f"there{number}", mount.path / f"again{number}", self.local / f"back{number}"
            run("git", "clone", "-q", url, there)
            run("git", "clone", "-q", there, again)
            self.cold(mount)
            for repository in (there, again):
                self.sound(repository)
            run("git", "clone", "-q", again, back)
            self.sound(back)
            self.assertEqual(self.contents(back), expected)

    def test_a_bare_repository_is_pushed_to(self):
        mount = self.new_mount()
        bare, work = mount.path / "bare.git", self.local / "work"
        run("git", "init", "-q", "--bare", bare)
        self.make(work)
        self.git(work, "push", "-q", bare, "main")
        self.cold(mount)
        self.git(work, "push", "-q", "--tags", bare, "other")
        run("git", "-C", bare, "fsck", "--full")
        self.assertEqual(self.git(bare, "rev-parse", "other"), self.git(work, "rev-parse", "other"))
