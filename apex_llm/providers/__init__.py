"""Providers: an address, an authentication, and which format to speak there."""
