"""The image formats that are opened, and the endings their files have: the one list of both."""

from __future__ import annotations

# Pillow's name of each format. A list of our own because Pillow would open more: EPS starts Ghostscript on the file's
# program, WMF is drawn by the system, IPTC opens what it contains as any format. The commonest come first, TGA last:
# having no signature, it would take damaged files of the others for its own.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),  # of an .mpo the first picture
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "ICO": (".ico",),
    "QOI": (".qoi",),
    "HEIF": (".heic", ".heif", ".hif"),  # with the extra pellucid[heic]
    "TGA": (".tga",),
}

IMAGE_EXTENSIONS = frozenset(extension for extensions in FORMATS.values() for extension in extensions)
