"""Faithfulness: does an image show what its caption asks for?"""
