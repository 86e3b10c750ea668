"""The archive: verdicts and labels as Parquet files by event day."""
