"""Output formats: what a sample looks like on the wire. A format is one entry in the table.

The same array with the same provenance always encodes to the same bytes: nothing of time or place goes in, and `Format.encoder`, which
is part of every ETag, names the library, its version and the settings. Samples are uint8 [height, width, channels] with 1 (gray),
3 (RGB) or 4 (RGBA) channels.
"""

from app.formats.films import FILM_PIXELS, FRAME_PIXELS, MAX_FRAMES, film_frames, timelapse
from app.formats.grids import MAX_PIXELS, captions, check_grid, check_scale, grid, grid_size, upscale
from app.formats.metadata import SOFTWARE
from app.formats.table import (
    BY_MEDIA_TYPE,
    BY_SPELLING,
    FORMATS,
    Format,
    Picture,
    Pictures,
    encode,
    format_with,
)

__all__ = [
    "BY_MEDIA_TYPE",
    "BY_SPELLING",
    "FILM_PIXELS",
    "FORMATS",
    "FRAME_PIXELS",
    "MAX_FRAMES",
    "MAX_PIXELS",
    "SOFTWARE",
    "Format",
    "Picture",
    "Pictures",
    "captions",
    "check_grid",
    "check_scale",
    "encode",
    "film_frames",
    "format_with",
    "grid",
    "grid_size",
    "timelapse",
    "upscale",
]
