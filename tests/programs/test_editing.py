"""What people and their scripts do to single files: each script runs on the local disk and on the mount, and leaves the same."""

import shutil

from harness.suite import Run, SharedCase
from bench import describe, found, shell

# {what it is: (programs that it needs, script)}. Each begins in an empty folder with `text`, of 2,000 lines, and
# `binary`, of 3 MB.
SCRIPTS = {
    "sed_in_place": ("sed", "chmod 640 text; sed -i 's/line 7/LINE 7/; /line 1000/d' text; sed -i.bak 1d text; sed -i '$a end' text"),
    "perl_in_place": ("perl", "perl -i -pe 's/line/row/' text; perl -i.orig -ne 'print if /5/' text"),
    "vim_renames": ("vim", "vim -u NONE -i NONE -n -es -c 'set backupcopy=no writebackup' -c '%s/line 12/edited/' -c wq text"),
    "vim_writes_in_place": ("vim", "vim -u NONE -i NONE -es -c 'set backupcopy=yes backup' -c '3,5d' -c w -c 'normal Gonew' -c wq text"),
    "editor_saves": (
        "python3",
        # As editors do that keep the old file until the new one is synced.
        """for n in 1 2 3; do python3 -c '
import os, shutil
old = open("text").read()
shutil.copy2("text", "text~")
with open(".text.swp", "w") as new:
    new.write(old.replace("line 1", "changed 1"))
    new.flush()
    os.fsync(new.fileno())
shutil.copymode("text", ".text.swp")
os.rename(".text.swp", "text")
folder = os.open(".", os.O_RDONLY)
os.fsync(folder)
'; done""",
    ),
    "dd_within": (
        "dd",
        """printf 0123456789 | dd of=binary bs=1 seek=1000000 conv=notrunc status=none
dd if=text of=binary bs=4k seek=700 conv=notrunc status=none
dd if=binary of=part bs=1k skip=900 count=200 status=none
dd if=text of=binary oflag=append conv=notrunc bs=1M status=none
printf x | dd of=sparse bs=1 seek=5000000 status=none
dd if=/dev/zero of=synced bs=64k count=3 conv=fsync status=none""",
    ),
    "truncate_both_ways": ("truncate", "truncate -s 100 text; truncate -s 4M binary; truncate -s 0 empty; truncate -s 12345 holes; truncate -s -5 text"),
    "log_moved_away": (
        "bash",
        # Its writer keeps the old file until it is told, as after logrotate's `create`.
        """exec 3>>app.log; echo one >&3; mv app.log app.log.1; echo two >&3; install -m 640 /dev/null app.log
exec 3>>app.log; echo three >&3; mv app.log.1 app.log.2; mv app.log app.log.1; gzip -n app.log.2; exec 3>&-; touch app.log""",
    ),
    "log_copied_and_cut": (
        "bash",
        # As logrotate's `copytruncate`, under a writer that appends.
        """exec 3>>app.log; echo one >&3; cp app.log app.log.1; : > app.log; echo two >&3
cp -p app.log app.log.2; truncate -s 0 app.log; echo three >&3""",
    ),
    "many_append": ("xargs", "seq 200 | xargs -P 8 -I% sh -c 'echo entry % >> log'; sort -n -k2 log -o log; wc -l < log > count"),
    "sort_onto_itself": (
        "sort",
        """sort -r text -o text; shuf --random-source=binary text -o shuffled; tac text > reversed
split -n 4 binary part; cat part* | cmp - binary""",
    ),
    "patched": (
        "patch diff",
        """cp text new; sed -i 's/line 9/nine/' new; diff -u --label old --label new text new > change || true
patch -b text < change; cmp text new""",
    ),
    "packed_in_place": ("gzip xz", "gzip -kn text; gzip -n binary; gunzip binary.gz; xz text; xz -d text.xz; zcat text.gz | cmp - text"),
    "links_and_modes": (
        "ln",
        """ln -s text link; ln -sfn binary link; readlink link; mkdir -p a/b/c; chmod -R u=rwX,g=rX,o= a; cp -P link a/; cp -L link a/b/copy
chmod g+s a/b; umask 077; touch a/b/c/private; (ln text hard || cp -p text hard) 2>/dev/null; mv -n text binary || true; mv -b binary text""",
    ),
    "locked_counter": ("flock", "echo 0 > n; for p in 1 2 3 4; do (for i in 1 2 3 4 5; do flock lock sh -c 'echo $(($(cat n) + 1)) > n'; done) & done; wait"),
    "fallocated": ("fallocate", "fallocate -l 200000 room; fallocate -p -o 4096 -l 8192 binary; fallocate -n -l 4M binary; fallocate -d binary"),
    "temporary": ("mktemp", "t=$(mktemp -p .); cat text > $t; chmod 644 $t; mv $t final; d=$(mktemp -d -p .); mv final $d/; mv $d moved"),
    "tee_and_pipes": ("tee", "cat text | tee one two > three; head -5 text | tee -a one > /dev/null; tail -c 100 binary >> two; comm -12 one three > four"),
    "swapped": ("python3", "mv text .t; mv binary text; mv .t binary; mkdir x y; mv text x/; mv x y/; mv y/x/text y/x.bin; rmdir y/x; cp -r y z"),
    "shredded": ("shred", "shred -n 1 -u binary; ls -A > names"),
}


class Editing(SharedCase):
    maxDiff = 4000

    def check(self, programs, script):
        if missing := [name for name in programs.split() if not found(name)]:
            self.skipTest(f"not installed: {' '.join(missing)}")
        local = Run.folder("local") / "here"
        local.mkdir()
        for folder in (local, self.dir):
            (folder / "text").write_text("".join(f"line {number}\n" for number in range(2000)))
            (folder / "binary").write_bytes(bytes(number * number % 251 for number in range(100_000)) * 30)
            shell(script, folder)
        wanted = self.plain(local)
        self.assertEqual(self.plain(self.dir), wanted)
        self.mount.flush(self.dir)
        stored = self.mount.files(f"{self.name}/")
        self.assertEqual(sorted(key.split("/", 1)[1] for key in stored), sorted(name for name, what in wanted.items() if what["mode"][0] != "d"))
        for name, what in wanted.items():
            if "sha256" in what:
                self.assertTrue(self.mount.object(f"{self.name}/{name}") == (local / name).read_bytes(), f"the object of {name} is not the file")
        shutil.rmtree(self.dir)

    def plain(self, folder):
        """Without what may differ: times, and the names that mktemp chose are gone by then."""
        return describe(folder, times=False)


for _name, _case in SCRIPTS.items():
    setattr(Editing, f"test_{_name}", lambda self, case=_case: self.check(*case))
