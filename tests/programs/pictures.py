"""One format of Pillow in one folder: prints {file: how it came out} as JSON, or {"cannot": why} where nothing can be saved.

Run as `pictures.py FORMAT FOLDER` in a process of its own. What it saves depends on nothing but the format.
"""

import hashlib
import json
import os
import pathlib
import sys
import time

from PIL import Image, ImageSequence

# Those of a picture, the most telling first; a format takes some of them.
MODES = ("RGBA", "RGB", "P", "L", "1", "CMYK", "F")

# Dates of a document, which would be those of the run.
SETTINGS = {"PDF": {"creationDate": time.gmtime(0), "modDate": time.gmtime(0)}}

# A film of several frames has the time of its making in it.
DATED = ("AVIF",)

# How Pillow's formats say that they don't take a picture, or don't read.
REFUSALS = (OSError, EOFError, SyntaxError, ValueError, KeyError, NotImplementedError, RuntimeError, AttributeError)


def picture(number, size=(320, 240)):
    """A gradient, another for each number."""
    band = Image.linear_gradient("L").resize(size)
    return Image.merge("RGB", (band, band.rotate(90 * number), band.transpose(Image.Transpose.FLIP_TOP_BOTTOM)))


def extension(name):
    return next((ending for ending, kind in sorted(Image.registered_extensions().items()) if kind == name), None)


def saved(image, path, name, frames=(), **more):
    """The first mode of MODES in which the format takes the picture, and the frames after it; else the error of the last."""
    refused = None
    for mode in MODES:
        if frames:
            more = {"save_all": True, "append_images": [frame.convert(mode) for frame in frames]}
        try:
            image.convert(mode).save(path, name, **SETTINGS.get(name, {}), **more)
            return mode
        except REFUSALS as error:
            refused = error
    raise refused


def outcome(path, name):
    """What is in the file, and what Pillow reads from it."""
    read = {"sha256": None if name in DATED else hashlib.sha256(path.read_bytes()).hexdigest()}
    try:
        with Image.open(path) as image:
            frames = [hashlib.sha256(frame.tobytes()).hexdigest() for frame in ImageSequence.Iterator(image)]
            read["picture"] = [image.size, image.mode, frames]
    except REFUSALS as error:
        # Formats that Pillow only writes. Its message names the path.
        read["picture"] = type(error).__name__
    return read


def in_place(path, name):
    """What a thumbnail for a page does: the file is its own source."""
    with Image.open(path) as image:
        image.thumbnail((100, 100))
        image.load()
        return saved(image, path, name)


def attempt(call, *args, **more):
    try:
        return call(*args, **more)
    except REFUSALS as error:
        return type(error).__name__


def main(name, folder):
    Image.init()
    folder = pathlib.Path(folder)
    file = folder / f"picture{extension(name) or '.' + name.lower()}"
    try:
        seen = {"mode": saved(picture(0), file, name)}
    except Exception as error:  # what it is depends on the libraries that Pillow was built with
        if file.exists():
            os.unlink(file)
        return {"cannot": f"{type(error).__name__}: {error}"}
    seen["whole"] = outcome(file, name)
    seen["mode in place"] = attempt(in_place, file, name)
    seen["in place"] = outcome(file, name)
    if name in Image.SAVE_ALL:
        several = folder / f"several{file.suffix}"
        frames = [picture(number) for number in range(1, 4)]
        seen["mode of several"] = attempt(saved, picture(0), several, name, frames)
        if several.exists():
            seen["several"] = outcome(several, name)
        if name == "PDF":
            # Writes after the end of the old pages.
            seen["mode appended"] = attempt(saved, picture(2), several, name, append=True)
            seen["appended"] = outcome(several, name)
    return seen


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:]), sort_keys=True))
