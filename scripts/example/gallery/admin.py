from django.contrib import admin
from django.core.files.storage import default_storage
from django.utils.html import format_html

from .models import Invoice, Photo


@admin.register(Photo)
class PhotoAdmin(admin.ModelAdmin):
    list_display = ["__str__", "shown"]

    def shown(self, photo):
        return format_html('<img class="thumbnail" src="{}" alt="">', default_storage.url(photo.thumbnail))


admin.site.register(Invoice)
