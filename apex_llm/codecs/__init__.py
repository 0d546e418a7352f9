"""Formats: values of ours to a provider's JSON, and back. Pure, and ignorant of providers."""
