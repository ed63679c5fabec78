import io
import pathlib

from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, default_storage
from django.db import models
from PIL import Image


def private_files():
    return FileSystemStorage(location=settings.PRIVATE_ROOT, base_url=None)


class Photo(models.Model):
    image = models.ImageField(upload_to="photos")
    thumbnail = models.CharField(max_length=200, editable=False)

    def save(self, *args, **kwargs):
        super().save(*args, **kwargs)
        if not self.thumbnail:
            with self.image.open() as file, Image.open(file) as picture:
                picture.thumbnail((160, 160))
                small = io.BytesIO()
                picture.convert("RGB").save(small, "JPEG")
            name = pathlib.Path(self.image.name).stem
            self.thumbnail = default_storage.save(f"thumbnails/{name}.jpg", ContentFile(small.getvalue()))
            super().save(update_fields=["thumbnail"])


class Invoice(models.Model):
    file = models.FileField(storage=private_files)
