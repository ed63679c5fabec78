"""Saves a picture through the demo's mount with stock Django, and shows the object that the bucket holds.

    quickstart_save.py DEMO_FOLDER DEMO_LOG DEMO_PID

Exits with an error if anything differs.
"""

import io
import json
import os
import pathlib
import subprocess
import sys
import time
import urllib.request

import boto3
import django.conf
from botocore.config import Config
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from PIL import Image, ImageDraw

# The embedded store's own key, the same everywhere: it serves this machine only.
ACCESS_KEY, SECRET_KEY = "mediafs", "mediafs-secret"
START_LIMIT_S = 30


def mount_point(folder):
    """Where the demo has mounted, once it has."""
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split(" ")
        if kind.startswith("fuse") and (point + "/").startswith(f"{folder}/"):
            return pathlib.Path(point)
    return None


def wait_for(condition, log, pid):
    end = time.monotonic() + START_LIMIT_S
    while not (found := condition()):
        if time.monotonic() > end or not pathlib.Path(f"/proc/{pid}").exists():
            sys.exit(f"error: the demo did not start:\n{log.read_text()}")
        time.sleep(0.05)
    return found


def picture():
    """A JPEG of 1,200 by 800, made here."""
    image = Image.linear_gradient("L").resize((1200, 800)).convert("RGB")
    ImageDraw.Draw(image).text((40, 40), "saved by Django, kept in a bucket", fill=(255, 160, 0), font_size=48)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def differences(jpeg, head, body, media_bytes):
    """What isn't as it should be, a line each."""
    facts = [
        ("size", head["ContentLength"], len(jpeg)),
        ("Content-Type", head["ContentType"], "image/jpeg"),
        ("bytes in the bucket equal", body == jpeg, True),
        ("bytes through the mount equal", media_bytes == jpeg, True),
    ]
    return [f"{what}: {found}, expected {expected}" for what, found, expected in facts if found != expected]


def main(folder, log, pid):
    media = wait_for(lambda: mount_point(folder), log, pid)
    program = os.environ["MEDIAFS"]
    status = json.loads(subprocess.check_output([program, "status", str(media), "--json"]))
    endpoint = status["endpoint"]

    django.conf.settings.configure(MEDIA_ROOT=str(media), MEDIA_URL="/media/", USE_TZ=True)
    jpeg = picture()
    began = time.monotonic()
    name = FileSystemStorage().save("photos/first.jpg", ContentFile(jpeg))
    saved_ms = (time.monotonic() - began) * 1000
    subprocess.run([program, "flush", str(media)], check=True, stdout=subprocess.DEVNULL)

    key = "/".join(filter(None, [status["prefix"].strip("/"), name]))
    bucket = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(s3={"addressing_style": "path"}),
    )
    head = bucket.head_object(Bucket=status["bucket"], Key=key)
    url = bucket.generate_presigned_url("get_object", Params={"Bucket": status["bucket"], "Key": key})
    with urllib.request.urlopen(url, timeout=30) as answer:
        body = answer.read()

    print(f"\nDjango's FileSystemStorage saved {name} in {saved_ms:.1f} ms, with MEDIA_ROOT = {media}")
    print("The object, as any S3 client sees it:")
    print(f"  key           {key}")
    print(f"  size          {head['ContentLength']} bytes")
    print(f"  Content-Type  {head['ContentType']}")
    print(f"  bytes         {'equal to' if body == jpeg else 'NOT equal to'} what Django saved")
    print(f"  URL           {endpoint}/{status['bucket']}/{key}")
    if wrong := differences(jpeg, head, body, (media / name).read_bytes()):
        sys.exit("error: " + "; ".join(wrong))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3])
