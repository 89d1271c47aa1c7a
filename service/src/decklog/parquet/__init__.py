"""Parquet files of the archive."""
