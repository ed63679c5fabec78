"""The status page in a browser: headless Chromium, at 0, 10 and 10,000 files that wait. Skipped where there is none.

With MEDIAFS_TEST_SCREENSHOTS=FOLDER it leaves what it saw there.
"""

import os
import pathlib
import re
import shutil
import subprocess
import time
import urllib.request

from harness import Gate, free_port, wait_until
from harness.suite import Case, Run
from posix_calls import write

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(Case):
    limit_s = 240

    def setUp(self):
        super().setUp()
        if not CHROMIUM:
            self.skipTest("not installed: chromium")
        self.gate = self.enterContext(Gate(Run.store))
        self.port = free_port()
        self.profile = Run.folder("chromium")

    def browser(self, *arguments):
        fixed = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", f"--user-data-dir={self.profile}"]
        command = [CHROMIUM, *fixed, "--enable-logging=stderr", "--v=0", "--virtual-time-budget=3000", *arguments, f"http://127.0.0.1:{self.port}/"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
        # What the page does wrong, the policy of its own headers included.
        self.assertEqual(re.findall(r".*CONSOLE.*", done.stderr), [])
        return done.stdout

    def seen(self, name):
        """The text of the page by element, after its script has run."""
        text = self.browser("--dump-dom")
        if folder := os.environ.get("MEDIAFS_TEST_SCREENSHOTS"):
            for scheme, size in (("light", "1200,1150"), ("dark", "1200,1150"), ("narrow", "500,1900")):
                dark = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
                self.browser(f"--screenshot={pathlib.Path(folder) / f'{name}-{scheme}.png'}", f"--window-size={size}", *dark)
        return dict(re.findall(r'<(?:p|h1|span)[^>]* id="([\w-]+)"[^>]*>([^<]*)<', text)), text

    def test_it_reads_well_whatever_waits(self):
        prices = Run.folder("config") / "m.toml"
        prices.write_text("[prices]\nwrite = 5.0\nread = 0.4\nsent = 0.09\n")
        mount = self.new_mount("--metrics", str(self.port), "--config", str(prices), "--ttl", "1h", endpoint=self.gate.endpoint, write_mode="back")
        for number in range(40):
            write(mount.path / f"warm-up {number}", b"x" * 20_000 * number)
            if number % 10 == 0:
                time.sleep(2)  # so that the plots have steps; what is checked doesn't depend on it
        mount.settle()
        samples = lambda: urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status.json").read().decode()
        wait_until(lambda: '"up":[' in samples() and '"up":[]' not in samples(), "a step of the plots", 20)
        said, text = self.seen("nothing")
        self.assertEqual((said["dirty"], said["failed"], said["health"]), ("nothing", "0", "the bucket answers"))
        self.assertRegex(said["cost"], r"^\$0\.\d+$")
        self.assertRegex(text, r'<path class="one" d="M[\d.]+ ')
        self.assertIn("<tr><td>PutObject</td>", text)
        self.gate.rule = lambda method, key: (400, "EntityTooLarge") if method == "PUT" else None
        for number in range(10):
            write(mount.path / f"<b>file {number}", b"x" * 5_000)
        wait_until(lambda: mount.status()["failed_files"] == 10, "all are refused", 60)
        said, text = self.seen("ten")
        self.assertEqual((said["dirty"], said["failed"]), ("10 files", "10"))
        self.assertIn("<td>&lt;b&gt;file 0</td>", text, "a name is text, not a part of the page")
        self.gate.shut()
        for number in range(10_000):
            (mount.path / f"many {number}").touch()
        wait_until(lambda: mount.status()["degraded"], "the bucket is away", 60)
        said, _ = self.seen("many")
        self.assertEqual(said["dirty"], "10,010 files")
        self.assertIn("doesn't answer since", said["health"])
        mount.kill()
