"""Requests to answers: two senders, and the layers that are put around them.

``http11_sender`` is the default and the fast one; ``httpx_sender`` brings in any client that the
caller has, and proxies. ``select`` chooses. Above them ``pipeline``, ``retry``, ``classify``,
``throttle``, ``authenticate`` and ``observe``, each knowing only ``Send``.
"""
