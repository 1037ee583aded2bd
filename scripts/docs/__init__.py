"""The documentation site: its pages that lie elsewhere, those made from the code, its links."""
