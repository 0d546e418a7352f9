"""What ``apex_llm`` costs, beside a floor and beside its peers, in one run. See ``python -m benchmarks --help``."""
