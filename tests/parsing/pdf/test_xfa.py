"""XFA forms (room `parsing`): a warning if the pages do not show the contents of the form."""

from __future__ import annotations

import pytest
from helpers.raw_pdf import one_page, stream

from jina_rag.config import IngestSettings
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.sources import source_file

PACKETS = stream("<xdp:xdp xmlns:xdp='http://ns.adobe.com/xdp/'/>")
WIDGET = "<</Type/Annot/Subtype/Widget/FT/Tx/T(name)/V(value)/Rect[72 600 300 620]/P 3 0 R>>"
FORMS = {
    "dynamic": ("/NeedsRendering true", "/Fields[]/XFA[(datasets) 10 0 R]", False, True),
    "dynamic, one stream": ("/NeedsRendering true", "/Fields[]/XFA 10 0 R", False, True),
    "without fields": ("", "/Fields[]/XFA[(template) 10 0 R (datasets) 10 0 R]", False, True),
    "static": ("", "/Fields[11 0 R]/XFA[(datasets) 10 0 R]", True, False),
    "no XFA": ("", "/Fields[11 0 R]", True, False),
}


@pytest.mark.parametrize("renderer", ["pymupdf", "pypdfium2"])
@pytest.mark.parametrize("form", FORMS)
def test_xfa_form_without_visible_fields_is_a_warning(form, renderer, tmp_path):
    catalog, fields, has_widget, is_warned = FORMS[form]
    objects = {1: f"<</Type/Catalog/Pages 2 0 R{catalog}/AcroForm<<{fields}>>>>", 10: PACKETS, 11: WIDGET}
    path = one_page(tmp_path / "form.pdf", objects=objects, page="/Annots[11 0 R]" if has_widget else "")
    with open_document(source_file(path), IngestSettings(renderer=renderer)) as document:
        assert any("XFA" in warning for warning in document.warnings) == is_warned
        assert document.render(1).words
