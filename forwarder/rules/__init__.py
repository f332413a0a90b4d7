"""The rules language: parse, check, match, explain.

Layer 1: text in, values out.
"""
