"""The documents of an index: manifest, maintenance, document filters, copying, missing files and near-duplicates."""
