"""What is indexed: the manifest, its upkeep, filters over documents, migration, near-duplicates."""
