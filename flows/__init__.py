"""When it runs: Prefect flows, thin, importable from a notebook."""
