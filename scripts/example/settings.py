"""A site whose media and static files lie in a bucket that mediafs mounts at $MOUNT. No storage backend, no boto3."""

import os
import pathlib

HERE = pathlib.Path(__file__).resolve().parent

SECRET_KEY = os.environ["SECRET_KEY"]
DEBUG = False
ALLOWED_HOSTS = ["*"]  # nginx stands before it
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "gallery",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "urls"
WSGI_APPLICATION = "wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
# The database stays on a local disk (or a server): SQLite doesn't belong on a bucket.
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"]}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

# The mount, and one directory in it for each tenant where there are several: their keys begin with it.
MOUNT = pathlib.Path(os.environ["MOUNT"])
TENANT = os.environ.get("TENANT", "")

MEDIA_ROOT = MOUNT / TENANT / "media"
# "/media/" is served by nginx from the mount. With a CDN or a public bucket: its domain, and nothing else changes.
MEDIA_URL = os.environ.get("MEDIA_URL", "/media/")
# Not below MEDIA_ROOT: nginx gives these only where a view says so.
PRIVATE_ROOT = MOUNT / TENANT / "private"

STATIC_ROOT = MOUNT / "static"
STATIC_URL = os.environ.get("STATIC_URL", "/static/")
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    # Names with hashes: the objects are immutable, and mediafs.toml has the Cache-Control that says so.
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
}
# Beyond 2.5 MB Django writes an upload into a file first; on the same mount that file is renamed, not copied.
FILE_UPLOAD_TEMP_DIR = os.environ.get("UPLOADS")
