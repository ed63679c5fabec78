import os
import pathlib
from urllib.parse import quote

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.utils.http import content_disposition_header

from .models import Invoice, Photo


@login_required(login_url="/admin/login/")
def invoice(request, number):
    """Who may see it is decided here; the bytes are nginx's, from the mount by sendfile."""
    name = get_object_or_404(Invoice, pk=number).file.name
    response = HttpResponse()
    response["X-Accel-Redirect"] = "/protected/" + quote(name)
    response["Content-Disposition"] = content_disposition_header(True, pathlib.Path(name).name)
    del response["Content-Type"]  # nginx knows it
    return response


def signed_link(path, seconds=3600):
    """A link to the object itself, for so long, made by the mount: this process knows no keys."""
    return os.getxattr(path, f"user.mediafs.url.{seconds}").decode()


def link(request, number):
    return HttpResponseRedirect(signed_link(get_object_or_404(Photo, pk=number).image.path, seconds=600))
