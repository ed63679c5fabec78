"""Several servers behind a balancer, each with its own mount of one bucket, as README has it: `--write-mode through`."""

import http.cookiejar
import io
import json
import re
import urllib.error
import urllib.parse
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from ground import EXAMPLE, Site
from harness import wait_until
from harness.suite import Run

ADD = "/admin/gallery/photo/add/"


def photo(number):
    file = io.BytesIO()
    Image.new("RGB", (300, 200), (number * 20 % 256, number * 7 % 256, 40)).save(file, "PNG")
    return file.getvalue()


class Editor:
    """Who is logged in to the admin; every request goes to whichever server is next."""

    def __init__(self, site):
        self.site = site
        self.jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))
        self.send("/admin/login/?next=/admin/", urllib.parse.urlencode({"username": "admin", "password": "secret", **self.token("/admin/login/")}))

    def token(self, path):
        page = self.opener.open(self.site + path, timeout=60).read().decode()
        return {"csrfmiddlewaretoken": re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)[1]}

    def send(self, path, body, kind="application/x-www-form-urlencoded"):
        """The address of the page that one is led to."""
        body = body.encode() if isinstance(body, str) else body
        request = urllib.request.Request(self.site + path, body, {"Content-Type": kind, "Referer": self.site + path})
        with self.opener.open(request, timeout=60) as answer:
            return answer.geturl()

    def add(self, name, data):
        limit = uuid.uuid4().hex
        fields = {**self.token(ADD), "_save": "Save"}
        parts = [f'--{limit}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode() for key, value in fields.items()]
        head = f'--{limit}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'
        body = b"".join([*parts, head.encode(), data, f"\r\n--{limit}--\r\n".encode()])
        return self.send(ADD, body, f"multipart/form-data; boundary={limit}")


class Balanced(Site):
    write_mode = "through"

    def setUp(self):
        super().setUp()
        self.other = self.new_mount("--config", str(EXAMPLE / "mediafs.toml"), write_mode="through", place=self.place_of(self.mount))
        self.prepare()
        self.servers = [self.server(mount) for mount in (self.mount, self.other)]
        upstream = " ".join(f"server 127.0.0.1:{port};" for port, _ in self.servers)
        passing = "client_max_body_size 100m; location / { proxy_pass http://servers; proxy_set_header Host $http_host; }"
        self.port, _ = self.front(Run.folder("balancer"), passing, f"upstream servers {{ {upstream} }}")
        for port in [port for port, _ in self.servers] + [self.port]:
            wait_until(lambda port=port: self.answers_at(port), "a server answers", 60)
        self.site = f"http://127.0.0.1:{self.port}"

    def answers_at(self, port):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/admin/login/", timeout=30).status == 200
        except OSError:
            return False

    def get_of(self, port, name):
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/media/{urllib.parse.quote(name)}", timeout=30).read()

    def photos(self):
        """[[name, thumbnail]], in the order in which they came."""
        text = "import json; from gallery.models import Photo; "
        said = self.python(text + "print(json.dumps(list(Photo.objects.order_by('pk').values_list('image', 'thumbnail'))))")
        return json.loads(said)

    def test_what_one_server_saved_all_of_them_serve(self):
        editors = [Editor(self.site) for _ in range(4)]
        wanted = [photo(number) for number in range(12)]

        def add(number):
            # All under one name, at the same time, on whichever server it is.
            self.assertTrue(editors[number % 4].add("cat.png", wanted[number]).endswith("/admin/gallery/photo/"))

        with ThreadPoolExecutor(4) as pool:
            for begun in [pool.submit(lambda first=first: [add(number) for number in range(first, 12, 4)]) for first in range(4)]:
                begun.result()
        # The reply was there: so is the object.
        photos = self.photos()
        names = [name for name, _ in photos]
        self.assertEqual(len(set(names)), 12, names)
        self.assertEqual(len({thumbnail for _, thumbnail in photos}), 12)
        stored = {name: self.mount.object(f"media/{name}") for name in names}
        self.assertEqual(sorted(stored.values()), sorted(wanted), "each picture once, and none over another")
        for name, data in stored.items():
            for port, _ in self.servers:
                self.assertEqual(self.get_of(port, name), data, f"{name} at {port}")
        for _, thumbnail in photos:
            self.assertEqual(Image.open(io.BytesIO(self.get_of(self.port, thumbnail))).size, (160, 107))
        self.assertFalse([key for key in self.mount.files() if "conflict" in key])

    def test_a_server_that_goes_takes_nothing_with_it(self):
        editor = Editor(self.site)
        for number in range(6):
            editor.add(f"p{number}.png", photo(number))
        # Without a word, as when the machine loses its power.
        for process in self.servers[0][1]:
            process.kill()
        self.mount.child.signal(9)
        names = [name for name, _ in self.photos_of_the_other()]
        for number, name in enumerate(names):
            self.assertEqual(self.get_of(self.port, name), photo(number), name)
        editor.add("late.png", photo(9))
        self.assertEqual(self.other.object("media/photos/late.png"), photo(9))

    def photos_of_the_other(self):
        self.env["MOUNT"] = str(self.other.path)
        return self.photos()

