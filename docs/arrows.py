"""Renew `precedents.png`, a sheet in LibreOffice with the arrows of *Trace Precedents*: `make pictures`.

LibreOffice is driven through its Python bridge, which belongs to the system's Python (Debian: python3-uno), so this
file runs twice: once to write the sheet and crop the picture, once, as a child, to draw the arrows.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

SYSTEM_PYTHON = "/usr/bin/python3"
DPI = 200


def write_sheet(path: Path) -> str:
    """Two convolutions on a seven, small enough for a page; returns the cell to trace."""
    import numpy as np
    import torch
    from PIL import Image
    from xlsxwriter.utility import xl_cell_to_rowcol, xl_rowcol_to_cell

    from pellucid import convolution as cv
    from pellucid.data.catalogue import URLs, untar_data

    net = cv.network("conv 1 1 k3 s2 p1, relu, conv 1 1 k3 s2 p1, relu", (1, 28, 28))
    with torch.no_grad():
        net[0].weight.copy_(cv.kernels.top_edge)
        net[2].weight.copy_(cv.kernels.sobel_x / -4)
        net[0].bias.fill_(-0.04)
        net[2].bias.fill_(0.1)
    digit = np.array(Image.open(untar_data(URLs.MNIST_SAMPLE) / "valid" / "7" / "0.png"), np.float32) / 255
    sheet = cv.to_spreadsheet(net, digit, path, layers=2)
    strongest = cv.trace(net, digit, layer="3").position
    top, left = xl_cell_to_rowcol(sheet.ranges["3"][0].split(":")[0])
    return xl_rowcol_to_cell(top + strongest[0], left + strongest[1])


def draw(sheet: str, pdf: str, cell: str) -> None:
    """Trace a cell back to the image and print the sheet; runs in the system's Python."""
    import uno  # pyright: ignore[reportMissingImports]
    from com.sun.star.beans import PropertyValue  # pyright: ignore[reportMissingImports]

    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--norestore", f"-env:UserInstallation=file://{profile}"]
        office = subprocess.Popen(["soffice", *options, "--accept=pipe,name=arrows;urp;"], stderr=subprocess.DEVNULL)
        here = uno.getComponentContext()
        resolver = here.ServiceManager.createInstanceWithContext("com.sun.star.bridge.UnoUrlResolver", here)
        there = None
        while there is None:
            try:
                there = resolver.resolve("uno:pipe,name=arrows;urp;StarOffice.ComponentContext")
            except Exception:  # its class exists only in the office that is still starting
                if office.poll() is not None:
                    raise
                time.sleep(0.3)
        desktop = there.ServiceManager.createInstanceWithContext("com.sun.star.frame.Desktop", there)
        hidden = PropertyValue(Name="Hidden", Value=True)
        book = desktop.loadComponentFromURL(f"file://{sheet}", "_blank", 0, (hidden,))
        page = book.Sheets.getByIndex(0)
        while page.showPrecedents(page.getCellRangeByName(cell).getCellAddress()):
            pass
        book.storeToURL(f"file://{pdf}", (PropertyValue(Name="FilterName", Value="calc_pdf_Export"),))
        book.close(True)
        desktop.terminate()
        office.wait(timeout=60)


def crop(picture: Path, target: Path) -> None:
    """Trim the margins, and store the few colours as a palette."""
    from PIL import Image, ImageOps

    page = Image.open(picture).convert("RGB")
    box = ImageOps.invert(page).getbbox()
    ImageOps.expand(page.crop(box), 16, "white").quantize(96).save(target, optimize=True)


def main(images: Path) -> None:
    """Write the picture into a folder."""
    with tempfile.TemporaryDirectory() as folder:
        sheet, pdf = Path(folder, "sheet.xlsx"), Path(folder, "sheet.pdf")
        cell = write_sheet(sheet)
        subprocess.run([SYSTEM_PYTHON, __file__, sheet, pdf, cell], check=True)
        subprocess.run(["pdftoppm", "-r", str(DPI), "-png", "-singlefile", pdf, pdf.with_suffix("")], check=True)
        crop(pdf.with_suffix(".png"), images / "precedents.png")
    print(images / "precedents.png")


if __name__ == "__main__":
    draw(*sys.argv[1:]) if len(sys.argv) > 1 else main(Path(__file__).parent / "images")
