"""DataFrame transforms and the stages that read, transform and write. Only this package and the jobs import pyspark."""
