"""Writing an atlas: atomic file replacement, folder, bundle, upsert, recluster."""
