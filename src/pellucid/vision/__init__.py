"""`from pellucid.vision.all import *` is the door for notebooks."""
