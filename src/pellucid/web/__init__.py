"""Pages for a browser: each is one HTML file that needs nothing else and asks the network for nothing.

A page is a folder here with its template `page.html`, which extends `base.html`, and the styles and scripts that it
names; `builder` fills it with data.
"""
