"""A headless Chromium, steered by chromedriver over the WebDriver protocol: no package is needed for so little."""

import base64
import json
import shutil
import urllib.error
import urllib.request

from harness import free_port, wait_until
from harness.process import Child

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


def installed():
    return shutil.which("chromedriver") and (shutil.which("chromium") or shutil.which("chromium-browser"))


class Browser:
    def __init__(self, folder):
        self.address = f"http://127.0.0.1:{free_port()}"
        self.driver = Child(["chromedriver", f"--port={self.address.rpartition(':')[2]}"], folder / "chromedriver.log", life_s=300)
        wait_until(self._answers, "chromedriver answers", 20)
        words = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}"]
        options = {"binary": installed(), "args": words}
        self.session = self._ask("/session", {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}})["sessionId"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.driver.stop()

    def _answers(self):
        try:
            return self._ask("/status")["ready"]
        except urllib.error.URLError:
            return False

    def _ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        try:
            return json.load(urllib.request.urlopen(request, timeout=60))["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"].splitlines()[0]) from None

    def _do(self, what, body=None):
        return self._ask(f"/session/{self.session}/{what}", body)

    def open(self, url):
        self._do("url", {"url": url})

    def _element(self, selector):
        return self._do("element", {"using": "css selector", "value": selector})[ELEMENT]

    def type(self, selector, text):
        """Into a field; for a file's field, its path."""
        self._do(f"element/{self._element(selector)}/value", {"text": str(text)})

    def click(self, selector):
        self._do(f"element/{self._element(selector)}/click", {})

    def run(self, script):
        return self._do("execute/sync", {"script": script, "args": []})

    def screenshot(self):
        return base64.b64decode(self._do("screenshot"))
