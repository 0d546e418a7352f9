"""The vocabulary: values that every other room speaks in.

Pure: no I/O, no clock, no environment. Users import these names from ``apex_llm``.
"""
