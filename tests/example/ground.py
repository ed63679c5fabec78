"""A case with the example's site on a mount, and what serves it: gunicorn behind nginx."""

import http.client
import io
import os
import pathlib
import shutil
import subprocess
import sys

from PIL import Image

from harness import free_port, wait_until
from harness.process import Child
from harness.suite import Case, Run

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "scripts/example"
AROUND = """
daemon off; master_process off; {user}
pid {work}/pid; error_log {work}/error.log info;
events {{ worker_connections 64; }}
http {{
  {more}
  types {{ image/jpeg jpg; text/css css; text/plain txt; }} default_type application/octet-stream;
  access_log off;
  client_body_temp_path {work}/t1; proxy_temp_path {work}/t2; fastcgi_temp_path {work}/t3;
  uwsgi_temp_path {work}/t4; scgi_temp_path {work}/t5;
  server {{ listen 127.0.0.1:{port}; include {work}/server.conf; }}
}}
"""


def nginx():
    unpacked = os.environ.get("MEDIAFS_TEST_NGINX", str(pathlib.Path.home() / ".cache/mediafs-dev/nginx/usr/sbin/nginx"))
    return shutil.which("nginx") or shutil.which("/usr/sbin/nginx") or shutil.which(unpacked)


def picture(width=800, height=600):
    file = io.BytesIO()
    Image.effect_mandelbrot((width, height), (-2, -1.5, 1, 1.5), 60).save(file, "JPEG")
    return file.getvalue()


class Site(Case):
    limit_s = 240
    write_mode = "back"

    def setUp(self):
        super().setUp()
        if not nginx():
            self.skipTest("not installed: nginx")
        self.work = Run.folder("site")
        self.mount = self.new_mount("--config", str(EXAMPLE / "mediafs.toml"), write_mode=self.write_mode)
        self.env = {
            **os.environ,
            "MOUNT": str(self.mount.path),
            "DATABASE": str(self.work / "db.sqlite3"),
            "SECRET_KEY": "for this test",
            "DJANGO_SUPERUSER_PASSWORD": "secret",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def manage(self, *words, **env):
        command = [sys.executable, EXAMPLE / "manage.py", *words]
        done = subprocess.run(command, env={**self.env, **env}, capture_output=True, text=True, timeout=100, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def python(self, text, **env):
        return self.manage("shell", "-c", text, **env).strip().splitlines()[-1]

    def serve(self):
        """gunicorn and nginx, as the example's files have them; the site's address."""
        self.prepare()
        self.port, _ = self.server(self.mount)
        wait_until(self.answers, "the site answers", 60)
        return f"http://127.0.0.1:{self.port}"

    def prepare(self):
        self.manage("migrate", "-v0")
        self.manage("createsuperuser", "--noinput", "--username", "admin", "--email", "")
        self.manage("collectstatic", "--noinput", "-v0")

    def server(self, mount):
        """One server with this mount: (its port, its processes)."""
        back, work = free_port(), Run.folder("server")
        command = [sys.executable, "-m", "gunicorn", "--chdir", EXAMPLE, "--bind", f"127.0.0.1:{back}", "--workers", "2", "wsgi"]
        gunicorn = Child(command, work / "gunicorn.log", {**self.env, "MOUNT": str(mount.path)}, life_s=300)
        self.addCleanup(gunicorn.stop)
        site = (EXAMPLE / "nginx.conf").read_text().replace("MOUNT", str(mount.path)).replace("GUNICORN", f"127.0.0.1:{back}")
        port, before = self.front(work, site)
        return port, [gunicorn, before]

    def front(self, work, server, more=""):
        """(port, process) of an nginx with one server; `more` belongs to `http`."""
        port = free_port()
        (work / "server.conf").write_text(server)
        user = "user root;" if os.geteuid() == 0 else ""
        (work / "nginx.conf").write_text(AROUND.format(work=work, port=port, user=user, more=more))
        process = Child([nginx(), "-p", work, "-e", work / "error.log", "-c", work / "nginx.conf"], work / "nginx.log", life_s=300)
        self.addCleanup(process.stop)
        return port, process

    def answers(self):
        try:
            return self.get("/admin/login/")[0] == 200
        except OSError:
            return False

    def get(self, path, cookie=""):
        """(status, headers, body)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        finally:
            connection.close()

    def add_photo(self, name="cat.jpg"):
        (self.work / name).write_bytes(picture())
        text = "from django.core.files import File; from gallery.models import Photo; p = Photo(); "
        text += f"p.image.save({name!r}, File(open({str(self.work / name)!r}, 'rb'))); print(p.image.name, p.thumbnail, p.pk)"
        return self.python(text).split()
