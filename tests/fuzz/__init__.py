"""A graph fuzzer: random graphs on every device, held to an interpreter that shares no kernel with them.

``python -m pytest tests/fuzz`` runs a few hundred graphs, ``python tests/fuzz/run.py --graphs 5000`` thousands.
"""
