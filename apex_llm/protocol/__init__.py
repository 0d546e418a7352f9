"""Bytes and signatures, without I/O: everything here is a pure function or a state machine that is fed.

Standard library only. No sockets, no clock, no environment, no logging: times are arguments,
and whoever reads the bytes decides when.

- ``sigv4``: signs requests for AWS, ``sigv4_presign`` queries; ``sigv4_verify`` is the other end, for the emulator.
- ``eventstream``: frames of ``application/vnd.amazon.eventstream``, both ways.
- ``sse``: server-sent events, decoded as bytes arrive.
"""
