"""Where a process spends its CPU time: perf's samples as folded stacks and as a flame graph."""

import collections
import html
import pathlib
import re
import shutil
import signal
import subprocess

HERTZ = 199
WIDTH, ROW = 1200, 16
# Narrower boxes can't be read.
LEAST_WIDTH = 0.4


class Profile:
    """Samples `pid` while it is entered; afterwards `NAME.folded` and `NAME.svg` lie in `folder`."""

    def __init__(self, pid, folder: pathlib.Path, name):
        self.pid, self.folder, self.name = pid, folder, name
        self.data = folder / f"{name}.perf"

    @staticmethod
    def missing():
        """Why there can be no profile; None: there can."""
        if not shutil.which("perf"):
            return "perf is not installed (apt install linux-perf, or linux-tools-generic on Ubuntu): no flame graph"
        tried = subprocess.run(["perf", "stat", "-e", "cpu-clock", "true"], check=False, capture_output=True)
        if tried.returncode:
            return "perf may not sample here (run as root, or set kernel.perf_event_paranoid to 1): no flame graph"
        return None

    def __enter__(self):
        command = ["perf", "record", "-q", "-F", str(HERTZ), "-e", "cpu-clock", "--call-graph", "fp", "-p", str(self.pid), "-o", str(self.data)]
        self.perf = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self

    def __exit__(self, *_):
        self.perf.send_signal(signal.SIGINT)
        self.perf.wait(60)
        script = subprocess.run(["perf", "script", "-i", str(self.data), "-F", "comm,ip,sym"], check=True, capture_output=True, text=True)
        stacks = folded(script.stdout)
        (self.folder / f"{self.name}.folded").write_text("".join(f"{';'.join(stack)} {count}\n" for stack, count in sorted(stacks.items())))
        (self.folder / f"{self.name}.svg").write_text(svg(stacks))
        self.data.unlink()


def folded(script):
    """{stack from the outermost frame: samples} of `perf script`'s text."""
    stacks = collections.Counter()
    for sample in script.strip().split("\n\n"):
        first, *frames = sample.splitlines()
        names = [re.sub(r"^\s*[0-9a-f]+\s+|::h[0-9a-f]{16}$", "", frame).strip() or "?" for frame in frames]
        stacks[(first.strip() or "?", *(name.replace(";", ":") for name in reversed(names)))] += 1
    return stacks


def svg(stacks):
    """One box for each frame, as wide as its share of the samples; the text of narrow ones shows on pointing at them."""
    tree, deepest = {}, 0
    for stack, count in stacks.items():
        level = tree
        deepest = max(deepest, len(stack))
        for name in stack:
            node = level.setdefault(name, [0, {}])
            node[0] += count
            level = node[1]
    total = sum(stacks.values()) or 1
    boxes = []

    def draw(level, left, depth):
        for name, (count, below) in sorted(level.items()):
            width = count / total * WIDTH
            if width >= LEAST_WIDTH:
                top = (deepest - depth) * ROW
                colour = f"hsl({20 + sum(name.encode()) % 35},85%,65%)"
                shown = html.escape(name[: int(width / 7)]) if width > 30 else ""
                title = f"{html.escape(name)}: {count / total:.1%}"
                boxes.append(f'<g><title>{title}</title><rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{ROW - 1}" fill="{colour}"/>')
                boxes.append(f'<text x="{left + 2:.1f}" y="{top + 12}">{shown}</text></g>')
                draw(below, left, depth + 1)
            left += width

    draw(tree, 0.0, 1)
    size = f'width="{WIDTH}" height="{deepest * ROW}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="monospace" font-size="11">\n' + "\n".join(boxes) + "\n</svg>\n"
