"""Items on disk: the held-out files of preprocessing, and the benchmarks' official files, fetched where allowed."""
