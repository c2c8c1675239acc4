"""The same walk on Apache Spark, for more than one machine: `digitd stream`."""
