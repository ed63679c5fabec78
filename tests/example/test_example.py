"""The example's own promises: pictures, private files, links, static files, tenants, and how one comes from elsewhere."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import urllib.request

import browser
from ground import Site, picture
from harness import wait_until
from harness.suite import Run

IMMUTABLE = "public, max-age=31536000, immutable"


class Serving(Site):
    def test_a_picture_through_the_admin_in_a_browser(self):
        if not browser.installed():
            self.skipTest("not installed: chromium and chromedriver")
        site = self.serve()
        (self.work / "cat.jpg").write_bytes(picture())
        with browser.Browser(self.work) as chromium:
            chromium.open(f"{site}/admin/login/?next=/admin/gallery/photo/add/")
            chromium.type("#id_username", "admin")
            chromium.type("#id_password", "secret")
            chromium.click("input[type=submit]")
            chromium.type("#id_image", self.work / "cat.jpg")
            chromium.click("input[name=_save]")
            width = wait_until(lambda: chromium.run("return document.querySelector('img.thumbnail')?.naturalWidth"), "the thumbnail is shown", 20)
            self.assertEqual(width, 160)
            styled = chromium.run("return getComputedStyle(document.querySelector('#header')).backgroundColor")
            self.assertNotEqual(styled, "rgba(0, 0, 0, 0)", "the admin has its style sheets")
            if folder := os.environ.get("MEDIAFS_TEST_SCREENSHOTS"):
                (pathlib.Path(folder) / "admin.png").write_bytes(chromium.screenshot())
        self.mount.settle()
        self.assertEqual(self.mount.head("media/photos/cat.jpg")["ContentType"], "image/jpeg")
        self.assertEqual(self.mount.object("media/photos/cat.jpg"), picture())

    def test_media_private_files_and_links(self):
        self.serve()
        image, thumbnail, number = self.add_photo()
        status, headers, body = self.get(f"/media/{image}")
        self.assertEqual((status, headers["Content-Type"], body), (200, "image/jpeg", picture()))
        self.mount.settle()
        self.assertEqual(self.mount.head(f"media/{thumbnail}")["CacheControl"], "public, max-age=86400")
        text = "from django.core.files.base import ContentFile; from gallery.models import Invoice; i = Invoice(); "
        invoice = self.python(text + "i.file.save('Mai übrig.txt', ContentFile(b'100 EUR')); print(i.pk)")
        # Whom nobody let in gets nothing, whatever he asks for.
        for path, expected in [(f"/invoices/{invoice}/", 302), ("/protected/Mai_%C3%BCbrig.txt", 404), ("/media/../private/Mai_%C3%BCbrig.txt", 404)]:
            self.assertEqual(self.get(path)[0], expected, path)
        session = "from django.test import Client; from django.contrib.auth.models import User; c = Client(); "
        key = self.python(session + "c.force_login(User.objects.get()); print(c.cookies['sessionid'].value)")
        status, headers, body = self.get(f"/invoices/{invoice}/", f"sessionid={key}")
        self.assertEqual((status, headers["Content-Type"], body), (200, "text/plain", b"100 EUR"))
        self.assertIn("attachment", headers["Content-Disposition"])
        self.mount.settle()
        self.assertEqual(self.mount.head("private/Mai_übrig.txt")["CacheControl"], "private, no-store")
        # The link is the store's own, and needs no key.
        status, headers, _ = self.get(f"/photos/{number}/link/")
        self.assertEqual(status, 302)
        self.assertTrue(headers["Location"].startswith(self.mount.endpoint) and "X-Amz-Expires=600" in headers["Location"], headers["Location"])
        self.assertEqual(urllib.request.urlopen(headers["Location"], timeout=20).read(), picture())

    def test_static_files_are_immutable_objects(self):
        self.serve()
        names = json.loads((self.mount.path / "static/staticfiles.json").read_text())["paths"]
        hashed = names["gallery/gallery.css"]
        self.assertRegex(hashed, r"^gallery/gallery\.[0-9a-f]{12}\.css$")
        self.mount.settle(120)
        head = self.mount.head(f"static/{hashed}")
        self.assertEqual((head["CacheControl"], head["ContentType"]), (IMMUTABLE, "text/css"))
        self.assertEqual(self.mount.head("static/staticfiles.json")["CacheControl"], "no-store")
        status, headers, _ = self.get(f"/static/{hashed}")
        self.assertEqual((status, headers["Cache-Control"]), (200, IMMUTABLE))

    def test_media_on_a_cdn_changes_only_the_links(self):
        self.manage("migrate", "-v0")
        image, _, _ = self.add_photo()
        url = self.python("from gallery.models import Photo; print(Photo.objects.get().image.url)", MEDIA_URL="https://cdn.example.com/media/")
        self.assertEqual(url, f"https://cdn.example.com/media/{image}")
        self.mount.settle()
        self.assertIn(f"media/{image}", self.mount.files(), "the key is the path of the link")


class Moving(Site):
    def test_a_prefix_for_each_tenant(self):
        self.manage("migrate", "-v0")
        for tenant in ("red", "blue"):
            text = "from django.core.files.base import ContentFile; from django.core.files.storage import default_storage as s; "
            said = self.python(text + f"print(s.save('logo.txt', ContentFile(b'{tenant}')))", TENANT=tenant)
            self.assertEqual(said, "logo.txt")
        self.mount.settle()
        self.assertEqual([self.mount.object(f"{tenant}/media/logo.txt") for tenant in ("red", "blue")], [b"red", b"blue"])
        # A mount of one tenant's prefix, as on a server that is his alone, shows nothing else.
        prefix = f"{self.mount.prefix}/red".lstrip("/")
        alone = self.new_mount(place=(self.mount.bucket, prefix))
        self.assertEqual(os.listdir(alone.path), ["media"])

    def test_from_django_storages_with_the_same_keys(self):
        try:
            from storages.backends.s3 import S3Storage
        except ImportError:
            self.skipTest("not installed: django-storages")
        from django.conf import settings
        from django.core.files.base import ContentFile
        if not settings.configured:
            settings.configure(USE_TZ=True)
        location = f"{self.mount.prefix}/media".lstrip("/")
        store = Run.store
        options = {"access_key": store.access_key, "secret_key": store.secret_key, "endpoint_url": store.endpoint, "region_name": store.region}
        old = S3Storage(bucket_name=self.mount.bucket, location=location, file_overwrite=False, **options)
        name = old.save("photos/old.jpg", ContentFile(picture()))
        # What the database has is the name: it means the same file on the mount.
        text = f"from django.core.files.storage import default_storage as s; print(s.size({name!r}), s.url({name!r}), s.exists({name!r}))"
        self.assertEqual(self.python(text), f"{len(picture())} /media/{name} True")
        text = f"from django.core.files.base import ContentFile; from django.core.files.storage import default_storage as s; print(s.save({name!r}, ContentFile(b'x')))"
        renamed = self.python(text)
        self.assertRegex(renamed, r"^photos/old_\w{7}\.jpg$", "as file_overwrite=False does it")
        self.mount.settle()
        with old.open(renamed) as file:
            self.assertEqual(file.read(), b"x", "and back: django-storages finds what was saved through the mount")

    def test_from_a_local_media_root(self):
        if not shutil.which("rsync"):
            self.skipTest("not installed: rsync")
        old = self.work / "old-media"
        for number in range(30):
            path = old / f"photos/{number % 3}/p{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(1000 + number))
            os.utime(path, (1_600_000_000, 1_600_000_000 + number))
        (self.mount.path / "media").mkdir()

        def copy():
            command = ["rsync", "-a", "--stats", f"{old}/", f"{self.mount.path}/media/"]
            said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=100).stdout
            return int(re.search(r"regular files transferred: ([\d,]+)", said)[1])

        # While the site goes on writing into the old directory; the second turn, with the site stopped, is short.
        self.assertEqual(copy(), 30)
        (old / "photos/late.jpg").write_bytes(b"late")
        self.assertEqual(copy(), 1)
        self.assertEqual(copy(), 0)
        self.mount.flush()
        stored = {key.removeprefix("media/"): self.mount.object(key) for key in self.mount.files()}
        local = {str(path.relative_to(old)): path.read_bytes() for path in old.rglob("*") if path.is_file()}
        self.assertEqual(stored, local)
