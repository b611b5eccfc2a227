"""What a file says of itself, in the places where other programs look: text chunks in PNG; EXIF and XMP in JPEG, WebP and AVIF.

The text itself stands in EXIF's ImageDescription, once. XMP says that a trained model made the picture, in IPTC's own word for it,
by which those who label such pictures know them.
"""

import struct
from importlib.metadata import version

SOFTWARE = f"ganvil {version('ganvil')}"
KEYWORD = "ganvil"  # of the text in a PNG

DESCRIPTION_TAG = 0x010E
_SOFTWARE_TAG = 0x0131
_ASCII = 2
_ENTRIES = 2
_HEADER_BYTES = 8 + 2 + _ENTRIES * 12 + 4
_SOFTWARE_Z = SOFTWARE.encode() + b"\0"

XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
    ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    f' xmp:CreatorTool="{SOFTWARE}"'
    ' Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    "</rdf:RDF></x:xmpmeta>"
).encode()


def exif(text: str) -> bytes:
    """A TIFF structure of two tags, ImageDescription and Software, as EXIF 2.32 (4.5) has it. `text` is ASCII."""
    described = text.encode("ascii") + b"\0"
    described_at = _HEADER_BYTES + len(_SOFTWARE_Z)
    entries = struct.pack(
        "<HHIIHHIII",
        *(DESCRIPTION_TAG, _ASCII, len(described), described_at),
        *(_SOFTWARE_TAG, _ASCII, len(_SOFTWARE_Z), _HEADER_BYTES),
        0,  # no further directory
    )
    return b"II*\0\x08\0\0\0" + struct.pack("<H", _ENTRIES) + entries + _SOFTWARE_Z + described
