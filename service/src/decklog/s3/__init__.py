"""Archives in S3 buckets."""
