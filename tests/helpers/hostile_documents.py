"""Hand-written PDFs that are hostile to a renderer."""

from __future__ import annotations

from pathlib import Path


def slow_pdf(path: Path, *, levels: int = 12) -> Path:
    """Write a PDF of two pages: the first nests `levels` levels of twelve forms each, the second is black."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R 4 0 R] /Count 2 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 5 0 R"
        b" /Resources << /XObject << /X 7 0 R >> >> >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 6 0 R >>",
        _stream(b"", b"/X Do"),
        _stream(b"", b"50 50 100 100 re f"),
    ]
    for level in range(levels):
        is_last = level == levels - 1
        inner = b"" if is_last else b" /Resources << /XObject << /X %d 0 R >> >>" % (len(objects) + 2)
        content = b"0 0 5 5 re f" if is_last else b"/X Do " * 12
        objects.append(_stream(b"/Type /XObject /Subtype /Form /BBox [0 0 200 200]" + inner, content))
    return _write(path, objects)


def _stream(entries: bytes, content: bytes) -> bytes:
    return b"<< %s /Length %d >>\nstream\n%s\nendstream" % (entries, len(content), content)


def _write(path: Path, objects: list[bytes]) -> Path:
    out, offsets = bytearray(b"%PDF-1.7\n"), []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    path.write_bytes(out)
    return path
